"""The training loop, driven by `accelerate.Accelerator`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.hard_pairs import check_scorer
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training import run_log
from ascl_plugin.training.average import WeightAverage
from ascl_plugin.training.batches import Feed, ListedFeed
from ascl_plugin.training.checkpoint import (
    TrainingState,
    check_best,
    check_same_run,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from ascl_plugin.training.models import check_targets
from ascl_plugin.training.nonfinite import BadBatches
from ascl_plugin.training.optimizer import learning_rate, make_optimizer
from ascl_plugin.training.resolve import Resolved
from ascl_plugin.training.sharding import Engine, sharded, share_buffers
from ascl_plugin.training.signals import StopSignal
from ascl_plugin.training.step import Step
from ascl_plugin.training.stream_feed import StreamFeed
from ascl_plugin.training.wise_ft import WiseFT


class Trainer:
    """Trains a model on rows, validates, keeps the best, resumes where it stopped.

    A step depends on the seed, its number and the weights: weights after any number of
    interruptions and resumptions equal those of a run left alone.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: RetrievalModel,
        loss: nn.Module,
        collator: AsymmetryCollator,
        train_rows: Dataset | Lanes,
        val_rows: Dataset,
        evaluator: Evaluator,
        options: Resolved,
        folder: Path,
    ) -> None:
        self.accelerator = accelerator
        self.args = args = options.train
        self.options = options
        self.folder = folder
        check_targets(loss, options.data.captions_per_image)
        if options.loss.hard_pairs:
            check_scorer(model.fusion)
        self.loss = loss
        self.val_rows = val_rows
        self.evaluator = evaluator
        self.raw_model = model
        self.engine = Engine(accelerator, model, make_optimizer(model, args))
        self.model = self.engine.model
        copies = isinstance(self.model, RetrievalModel | DistributedDataParallel)
        if args.cached_chunk and (sharded(self.model) or not copies):
            raise ValueError(
                "cached_chunk needs one process, or several that each hold the whole model "
                f"(DistributedDataParallel), got {type(self.model).__name__}"
            )
        if (args.ema_decay or args.wise_ft_alpha != 1) and sharded(self.model):
            name = "ema_decay" if args.ema_decay else "wise_ft_alpha"
            raise ValueError(f"{name} needs ranks that each hold the whole model, not FSDP2")
        self.wise_ft = WiseFT(model, args.wise_ft_alpha) if args.wise_ft_alpha != 1 else None
        self.average = WeightAverage(model, args.ema_decay) if args.ema_decay else None
        self.feed: Feed
        if isinstance(train_rows, Lanes):
            self.feed = StreamFeed(train_rows, collator, options, accelerator)
        else:
            self.feed = ListedFeed(train_rows, collator, options, accelerator)
        # all that must be the same when the run is resumed
        self.identity = {**options.flat(), "training data": self.feed.describe()}
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
        """Train to the end, or until patience runs out or a signal asks to stop.

        Raises:
            FloatingPointError: a loss or a gradient is not finite, and no more steps may be
                skipped; nothing of that step is kept.
            KeyboardInterrupt: a signal came; a checkpoint of the last whole step was written.
        """
        if self.args.resume:
            self._resume()
        if self.accelerator.is_main_process:  # also of a run that was killed before it saved
            run_log.drop_after(self.folder, self.step)
        device = self.accelerator.device
        random_state = torch.random.fork_rng([device] if device.type == "cuda" else [])
        bar = tqdm(
            total=self.total_steps,
            initial=self.step,
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        with random_state, self.stop_signal.awaited(), bar:
            patience = self.args.patience or math.inf
            while self.step < self.total_steps and self.bad_validations < patience:
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
            if self.best["rsum"] == -math.inf:  # the best model was deleted
                self._validate(bar)
                self._save()

    def load_best(self) -> None:
        """Load the best validation's weights into the model, whole on each rank.

        Raises:
            ValueError: they are not what was written.
        """
        check_best(self.folder)
        self.engine.finish(load_file(self.folder / "best" / "model.safetensors"))

    def planned_texts(self) -> Iterator[str]:
        """Yield every caption and generated text of the run, as far as they are known."""
        return self.feed.planned_texts(-(-self.total_steps // self.steps_per_epoch))

    def _train_epoch(self, bar: tqdm) -> None:
        self.model.train()
        bar.set_description(self._phase())
        losses: list[float] = []  # since the last line of the log
        started = time.perf_counter()
        for batch in self.feed.batches(self.epoch, self.batch):
            if self.batch % self.args.gradient_accumulation_steps == 0:
                rate = learning_rate(self.args, self.step, self.total_steps, self.steps_per_epoch)
                step = Step(self.engine, self.loss, self.bad_batches, self.options, self.step, rate)
            step.add(batch, align=self.epoch < self.args.align_epochs)
            self.batch += 1
            if self.batch % self.args.gradient_accumulation_steps:
                continue
            if step.finite:
                losses += step.losses
            elif self.accelerator.is_main_process:
                bar.write(f"step {self.step + 1} is skipped: not finite; see log.jsonl")
            self.step += 1
            if self.average is not None and step.finite:
                self.average.update(self.step)
            bar.update()
            if self.step % self.args.log_every == 0 or self.step == self.total_steps:
                elapsed, started = time.perf_counter() - started, time.perf_counter()
                pairs = len(losses) * self.feed.batch_size * self.options.data.captions_per_image
                values = {"learning_rate": step.rate, "pairs_per_second": pairs / elapsed}
                if losses:
                    values = {"loss": sum(losses) / len(losses)} | values
                    bar.set_postfix(loss=f"{values['loss']:.3f}")
                self._log(values)
                losses = []
            if self.stop_signal.anywhere() or self.step >= self.total_steps:
                return
            if self.args.save_every and self.step % self.args.save_every == 0:
                self._save()

    def _phase(self) -> str:
        """Return what an epoch does, and its place among those that do."""
        aligning, all_epochs = self.args.align_epochs, -(-self.total_steps // self.steps_per_epoch)
        if self.epoch < aligning:
            return f"aligning captions, epoch {self.epoch + 1} of {min(aligning, all_epochs)}"
        return f"training, epoch {self.epoch + 1 - aligning} of {all_epochs - aligning}"

    def _validate(self, bar: tqdm) -> None:
        self.model.eval()
        share_buffers(self.raw_model)
        with ExitStack() as stack:
            for other in (self.average, self.wise_ft):  # the average is what is interpolated
                if other is not None:
                    stack.enter_context(other.in_place())
            self._validate_weights(bar)
        self.accelerator.wait_for_everyone()

    def _validate_weights(self, bar: tqdm) -> None:
        texts, owners = caption_to_image(self.val_rows)
        with self.engine.unsharded():
            sim = self.evaluator.score(self.val_rows, texts)
        metrics = retrieval_metrics(sim, owners)
        self._log({f"val_{k}": v for k, v in metrics.items()})
        self.bad_validations += 1
        if metrics["rsum"] > self.best["rsum"]:
            self.best = {**metrics, "epoch": self.epoch, "step": self.step}
            self.bad_validations = 0
            if self.step >= self.total_steps:
                self.last_scores = sim
            self.engine.save_pretrained(self.folder / "best")
        if self.accelerator.is_main_process:
            bar.write(
                f"epoch {self.epoch}, step {self.step}: val rsum {metrics['rsum']:.1f}, "
                f"I2T R@1 {metrics['i2t_r1']:.1f}, T2I R@1 {metrics['t2i_r1']:.1f}"
            )

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self._write_line(values)
            self.accelerator.log(values, step=self.step)

    def _write_line(self, values: dict[str, object] | dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            run_log.write_line(self.folder, {"step": self.step, "epoch": self.epoch, **values})

    def _save(self) -> None:
        place = self.feed.state()  # gathered from all ranks, as are the next two
        weights, moments = self.raw_model.trained_state(), self.engine.optimizer_state()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state: TrainingState = {
                "optimizer": moments,
                "scaler": None if scaler is None else scaler.state_dict(),
                "step": self.step,
                "epoch": self.epoch,
                "batch": self.batch,
                "feed": place,
                "average": None if self.average is None else self.average.state(),
                "best": self.best,
                "bad_validations": self.bad_validations,
                "skipped_steps": self.bad_batches.steps,
                "options": self.identity,
            }
            save_checkpoint(self.folder, self.step, weights, state)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = checkpoints(self.folder)
        if not found:
            return
        weights, state = load_checkpoint(found[-1])
        check_same_run(state["options"], self.identity, found[-1])
        self.engine.load_trained_state(weights)
        self.engine.load_optimizer_state(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
        self.best, self.bad_validations = state["best"], state["bad_validations"]
        self.feed.load_state(state["feed"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state(state["average"])
        self.bad_batches.steps = state["skipped_steps"]
        if (self.folder / "best").is_dir():
            check_best(self.folder)
        elif self.best["rsum"] > -math.inf:
            self.accelerator.print(f"{self.folder / 'best'} is gone: looking for the best anew")
            self.best, self.bad_validations = {"rsum": -math.inf}, 0
        self.accelerator.print(f"resumed from {found[-1]}, step {self.step}", flush=True)
