"""The training loop, driven by `accelerate.Accelerator`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DataParallel
from tqdm.auto import tqdm

from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.disk import check_sums, write_sums, written
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.model import RetrievalModel, to_inputs
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.batches import Feed
from ascl_plugin.training.checkpoint import (
    check_same_run,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from ascl_plugin.training.gradient_cache import CachedEncoding, average_gradients
from ascl_plugin.training.nonfinite import BadBatches
from ascl_plugin.training.optimizer import learning_rate, make_optimizer, set_rate
from ascl_plugin.training.run_log import RunLog
from ascl_plugin.training.sharding import Engine, sharded, share_buffers
from ascl_plugin.training.signals import StopSignal
from ascl_plugin.training.stream_feed import StreamFeed


class Trainer:
    """Trains a model on rows, validates, keeps the best, resumes where it stopped.

    What a step does depends on the seed, the step, and the weights: weights after any number of
    interruptions and resumptions equal those of a run left alone.

    Args:
        accelerator: of the run.
        model, loss: what is trained and by what.
        collator: rows to batch.
        train_rows: a split, or the `Lanes` of a stream.
        val_rows: a split.
        evaluator: scores `val_rows` with the model.
        options: of the run.
        folder: of the run.
    """

    def __init__(
        self,
        accelerator: Any,
        model: RetrievalModel,
        loss: nn.Module,
        collator: AsymmetryCollator,
        train_rows: Any,
        val_rows: Any,
        evaluator: Evaluator,
        options: Options,
        folder: Path,
    ) -> None:
        self.accelerator = accelerator
        self.args = args = options.train
        self.options = options
        self.folder = folder
        self.loss = loss
        self.val_rows = val_rows
        self.evaluator = evaluator
        self.raw_model = model
        self.engine = Engine(accelerator, model, make_optimizer(model, args))
        self.model, self.optimizer = self.engine.model, self.engine.optimizer
        if args.cached_chunk and (
            sharded(self.model) or not isinstance(self.model, RetrievalModel | DataParallel)
        ):
            raise ValueError(
                "cached_chunk needs one process, or several that each hold the whole model "
                f"(DistributedDataParallel), got {type(self.model).__name__}"
            )
        make_feed = StreamFeed if isinstance(train_rows, Lanes) else Feed
        self.feed = make_feed(train_rows, collator, options, accelerator)
        # all that must be the same when a run goes on
        self.of_run = {**options.flat(), "training data": self.feed.told()}
        self.run_log = RunLog(folder)
        self.step = self.epoch = self.batch = self.bad_validations = 0
        self.best: dict[str, float] = {"rsum": -math.inf}
        self.bad_batches = BadBatches(
            accelerator, model, self.feed.names, args.skip_bad_batches, self._write_line
        )
        self.last_scores: Tensor | None = None  # of val, by the best model, if it is the last
        self.stop_signal = StopSignal(accelerator)
        self.steps_per_epoch = self.feed.batches_per_epoch // args.gradient_accumulation_steps
        self.total_steps = self.steps_per_epoch * args.epochs
        if args.max_steps:
            self.total_steps = min(args.max_steps, self.total_steps)

    def fit(self) -> None:
        """Trains to the end, or until patience runs out or a signal asks to stop.

        Raises:
            FloatingPointError: a loss or a gradient is not finite, and no more batches may be
                skipped; nothing of that step is kept.
            KeyboardInterrupt: a signal came; a checkpoint of the last whole step was written.
            OSError: the folder cannot be written.
        """
        if self.args.resume:
            self._resume()
        if self.accelerator.is_main_process:  # also of a run that was killed before it saved
            self.run_log.drop_after(self.step)
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        with self.stop_signal.awaited(), bar:
            while self.step < self.total_steps and not self._out_of_patience():
                self._train_epoch(bar)
                stopping = self.stop_signal.anywhere()
                if not stopping:
                    self.epoch, self.batch = self.epoch + 1, 0
                    last = self.step >= self.total_steps
                    if last or self.epoch % self.args.eval_every == 0:
                        self._validate(bar)
                self._save()
                if stopping or self.stop_signal.anywhere():
                    raise KeyboardInterrupt(f"signal {self.stop_signal.number}")
            if self.best["rsum"] == -math.inf:  # what was the best is gone from the disk
                self._validate(bar)
                self._save()

    def load_best(self) -> None:
        """Puts the weights of the best validation into the model, whole ones on each process.

        Raises:
            ValueError: they are not what was written.
        """
        from safetensors.torch import load_file

        self._check_best()
        self.engine.finish(load_file(self.folder / "best" / "model.safetensors"))

    def _check_best(self) -> None:
        best = self.folder / "best"
        try:
            check_sums(best)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{best} is damaged ({error}); put back a copy, or delete this folder and "
                "--resume: the best of the validations still to come takes its place"
            ) from error

    def planned_texts(self) -> Iterator[str]:
        """Every caption and generated text that the run will ask for, in its order."""
        return self.feed.planned_texts(-(-self.total_steps // self.steps_per_epoch))

    def _train_epoch(self, bar: tqdm) -> None:
        self.model.train()
        accumulate = self.args.gradient_accumulation_steps
        losses: list[float] = []  # since the last line of the log
        started = time.perf_counter()
        for batch in self.feed.batches(self.epoch, self.batch):
            if self.batch % accumulate == 0:
                # dropout and the like: chance that depends on the step, not on what ran before
                torch.manual_seed(self._seed_of_step())
                rate = learning_rate(self.args, self.step, self.total_steps, self.steps_per_epoch)
                set_rate(self.optimizer, rate)
                of_step: list[float] = []
                rows: list[int] = []
                healthy = True
                self.bad_batches.begin()
            with self.engine.accumulating():
                if healthy:  # else the rest of the step is left out, too
                    rows += batch["row"].tolist()
                    healthy = self._backward(batch, rows, of_step) and self._update(rows)
                self.optimizer.zero_grad()
            self.batch += 1
            if self.batch % accumulate:
                continue
            if healthy:
                losses += of_step
            elif self.accelerator.is_main_process:
                bar.write(f"step {self.step + 1} is left out: not finite; see log.jsonl")
            self.step += 1
            bar.update()
            if self.step % self.args.log_every == 0 or self.step == self.total_steps:
                elapsed, started = time.perf_counter() - started, time.perf_counter()
                pairs = len(losses) * self.feed.batch_size
                values = {"learning_rate": rate, "pairs_per_second": pairs / elapsed}
                if losses:
                    values = {"loss": sum(losses) / len(losses)} | values
                    bar.set_postfix(loss=f"{values['loss']:.3f}")
                self._log(values)
                losses = []
            if self.stop_signal.anywhere() or self.step >= self.total_steps:
                return
            if self.args.save_every and self.step % self.args.save_every == 0:
                self._save()

    def _backward(self, batch: dict[str, Tensor], rows: list[int], losses: list[float]) -> bool:
        """Adds the batch's gradients, and its loss to `losses`; False if the step is left out."""
        inputs = to_inputs(batch, self.accelerator.device)
        negatives = self.options.loss.negatives, self.options.loss.noise_strength
        align = self.epoch < self.args.align_epochs
        cached = None
        if self.args.cached_chunk:
            cached = CachedEncoding(
                self.raw_model, inputs, self.args.cached_chunk, self.accelerator.autocast
            )
        with self.accelerator.autocast():
            if cached is None:
                blocks = self.model(inputs, *negatives, align=align)
            else:
                blocks = self.raw_model.score(
                    cached.images, cached.texts, inputs, *negatives, align=align
                )
            loss = self.loss(**blocks)
        value = loss.item()
        losses.append(value)
        step = self.step + 1
        if not self.bad_batches.fine(math.isfinite(value), f"loss is {value}", step, rows):
            return False
        self.engine.backward(loss)
        if cached is not None:
            cached.carry_on()
        return True

    def _update(self, rows: list[int]) -> bool:
        """Moves the weights, if this batch is the step's last; False if the step is left out."""
        if self.accelerator.sync_gradients:
            if self.args.cached_chunk:
                average_gradients(self.raw_model)
            what = "a gradient is not finite"
            if not self.bad_batches.fine(self.engine.ready(), what, self.step + 1, rows):
                return False
        self.engine.move(self.args.max_grad_norm)
        return True

    def _validate(self, bar: tqdm) -> None:
        self.model.eval()
        share_buffers(self.raw_model)
        texts, owners = caption_to_image(self.val_rows)
        with self.engine.whole():
            sim = self.evaluator.score(self.val_rows, texts)
        metrics = retrieval_metrics(sim, owners)
        self._log({f"val_{k}": v for k, v in metrics.items()})
        if metrics["rsum"] > self.best["rsum"]:
            self.best = {**metrics, "epoch": self.epoch, "step": self.step}
            self.bad_validations = 0
            if self.step >= self.total_steps:
                self.last_scores = sim
            with self.engine.saving():
                if self.accelerator.is_main_process:
                    names = ("config.json", "model.safetensors")
                    with written(self.folder / "best") as aside:
                        self.raw_model.save_pretrained(aside)
                        write_sums(aside, names)
        else:
            self.bad_validations += 1
        if self.accelerator.is_main_process:
            bar.write(
                f"epoch {self.epoch}, step {self.step}: val rsum {metrics['rsum']:.1f}, "
                f"I2T R@1 {metrics['i2t_r1']:.1f}, T2I R@1 {metrics['t2i_r1']:.1f}"
            )
        self.accelerator.wait_for_everyone()

    def _out_of_patience(self) -> bool:
        return bool(self.args.patience) and self.bad_validations >= self.args.patience

    def _seed_of_step(self) -> int:
        rank = self.accelerator.process_index
        return hash((self.args.seed, self.step, rank)) % 2**63

    def _log(self, values: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        self._write_line(values)
        self.accelerator.log(values, step=self.step)

    def _write_line(self, values: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.run_log.write({"step": self.step, "epoch": self.epoch, **values})

    def _save(self) -> None:
        place = self.feed.state()  # which all processes gather
        weights, moments = self.engine.trained_state(), self.engine.optimizer_state()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "optimizer": moments,
                "scaler": None if scaler is None else scaler.state_dict(),
                "step": self.step,
                "epoch": self.epoch,
                "batch": self.batch,
                "feed": place,
                "best": self.best,
                "bad_validations": self.bad_validations,
                "skipped_steps": self.bad_batches.steps,
                "options": self.of_run,
            }
            save_checkpoint(self.folder, self.step, weights, state)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = checkpoints(self.folder)
        if not found:
            return
        weights, state = load_checkpoint(found[-1])
        check_same_run(state["options"], self.of_run, found[-1])
        self.engine.load_trained_state(weights)
        self.engine.load_optimizer(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        for name in ("step", "epoch", "batch", "best", "bad_validations"):
            setattr(self, name, state[name])
        self.feed.load_state(state.get("feed"))
        self.bad_batches.steps = state.get("skipped_steps", [])
        if (self.folder / "best").is_dir():
            self._check_best()
        elif self.best["rsum"] > -math.inf:
            self.accelerator.print(f"{self.folder / 'best'} is gone: the best is looked for anew")
            self.best, self.bad_validations = {"rsum": -math.inf}, 0
        if self.accelerator.is_main_process:
            print(f"resumed from {found[-1]}, step {self.step}", flush=True)
