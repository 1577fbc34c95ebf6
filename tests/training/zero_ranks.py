"""What each process of the tests in test_zero.py does; a program."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from ascl_plugin import AsymmetryLoss
from ascl_plugin.asymmetry import AsymmetryCollator
from ascl_plugin.data import scenes
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.training import trainer as loop
from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.setup import make_accelerator

# three epochs of one step of two batches, the first by late interaction alone
OPTIONS = [
    "--batch_size=4", "--epochs=3", "--align_epochs=1", "--captions_per_epoch=1", "--dim=8",
    "--encoder_width=8", "--num_regions=4", "--num_heads=2", "--max_grad_norm=0.5",
    "--learning_rate=1e-3", "--align_learning_rate=1e-3", "--negatives=gaussian",
    "--gradient_accumulation_steps=2", "--weight_decay=0.01", "--encoder_learning_rate=5e-4",
    "--log_with=none", "--eval_every=3",
]  # fmt: skip
STAGES = (1, 2, 3)


class Steep(AsymmetryLoss):
    """A finite loss whose gradient is not: the root of what is 0."""

    def forward(self, sim, **others):
        return super().forward(sim, **others) + (sim - sim.detach()).abs().sqrt().sum()


def trainer(folder, stage, *more):
    """Over the same 8 drawn scenes every time, the text encoder frozen; DDP where stage is 0."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    os.environ["ACCELERATE_USE_DEEPSPEED"] = str(bool(stage))
    os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
    options = parse_options([*OPTIONS, f"--cpu={not stage}", *more])
    accelerator = make_accelerator(options, folder)
    rows = {name: scenes.make(name, 8, 0) for name in ("train", "val")}
    model = make_model(options, rows["train"]["captions"][:])
    model.text_encoder.requires_grad_(False)
    model.text_encoder.frozen = True
    images, texts = ImageInputs(model.image_encoder), TextInputs(model.text_encoder)
    collator = AsymmetryCollator(texts, images, "mixed", "gaussian", 0)
    folder.mkdir(exist_ok=True)
    return loop.Trainer(
        accelerator, model, make_loss(options.loss), collator, rows["train"], rows["val"],
        Evaluator(model, images, texts), options, folder,
    )  # fmt: skip


def held(run):
    """Numbers that train in all, and those of weights and moments that are held here."""
    here, of = run.engine.parameters, run.raw_model.text_encoder.parameters()
    moments = run.engine.model.optimizer.state.values()
    return {
        "trained": sum(getattr(p, "ds_numel", p.numel()) for p in here),
        "weights": sum(getattr(p, "ds_tensor", p).numel() for p in here),
        "moments": sum(of_part["exp_avg"].numel() for of_part in moments if of_part),
        "frozen": sum(p.numel() for p in of),
    }


def trained(folder, stage, *more, bad=(), steep=False):
    """What a run leaves and keeps; batches whose numbers are in `bad` are no numbers on rank 1."""
    run = trainer(folder, stage, *more)
    if steep:
        run.loss = Steep()
    count, plain = iter(range(100)), loop.to_inputs

    def poisoned(batch, device):
        inputs = plain(batch, device)
        if next(count) in bad and run.accelerator.process_index:
            inputs["pixel_values"] = inputs["pixel_values"] * torch.nan
        return inputs

    loop.to_inputs = poisoned
    try:
        run.fit()
    except FloatingPointError as error:
        return {"error": str(error), "left": [path.name for path in checkpoints(folder)]}
    finally:
        loop.to_inputs = plain
    found = {"held": held(run) if stage else None, "skipped": run.bad_batches.steps}
    run.load_best()
    weights, state = load_checkpoint(checkpoints(folder)[-1])
    return found | {
        "weights": weights, "optimizer": state["optimizer"], "best": run.best,
        "sims": run.evaluator.score(run.val_rows, ["a red circle", "a blue square"]),
    }  # fmt: skip


def one_process(rank, port, out):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    out = Path(out)

    def goes_on(before, after):
        """From the checkpoint of step 2: the fusion has taken one step, the rest two."""
        folder = out / f"{after} after {before}"
        if rank == 0:
            shutil.copytree(out / str(before) / "checkpoint-0000002", folder / "checkpoint-0000002")
        torch.distributed.barrier()
        return trained(folder, after, "--resume=True")

    found = {"0": trained(out / "0", 0)}
    skip, one = "--skip_bad_batches=9", "--max_steps=1"
    found["0, one bad"] = trained(out / "0b", 0, skip, bad=(3,))
    found["0, steep"] = trained(out / "0g", 0, skip, one, steep=True)
    pooled, bf16 = ("--fusion=pooled", "--pooled_image=pooled"), ("--mixed_precision=bf16",)
    for name, more in (("pooled", pooled), ("bf16", bf16)):
        for stage in (0, 3):
            found[f"{stage}, {name}"] = trained(out / f"{stage}{name}", stage, *more)
    for stage in STAGES:
        found[str(stage)] = trained(out / str(stage), stage)
        found[f"{stage} after 0"] = goes_on(0, stage)
        found[f"0 after {stage}"] = goes_on(stage, 0)
        found[f"{stage}, one bad"] = trained(out / f"{stage}b", stage, skip, bad=(3,))
        found[f"{stage}, steep"] = trained(out / f"{stage}g", stage, skip, one, steep=True)
    found["stopped"] = trained(out / "stopped", 2, bad=(3,))
    torch.save(found, out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    one_process(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
