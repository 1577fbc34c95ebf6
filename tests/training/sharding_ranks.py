"""What each process of the tests in test_sharding.py does; a program.

Accelerate leaves sharding out on CPUs, where torch itself can do it: it is switched on by hand.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from ascl_plugin.asymmetry import AsymmetryCollator
from ascl_plugin.data import scenes
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.trainer import Trainer

# two epochs of one step of two batches, the first by late interaction alone
OPTIONS = [
    "--batch_size=4", "--epochs=2", "--align_epochs=1", "--captions_per_epoch=1", "--dim=8",
    "--image_encoder.width=8", "--text_encoder.width=8", "--image_encoder.grid=2",
    "--fusion.num_heads=2", "--max_grad_norm=0.5", "--cpu=True",
    "--learning_rate=1e-3", "--align_learning_rate=1e-3", "--negatives=gaussian",
    "--gradient_accumulation_steps=2",
]  # fmt: skip


def build(accelerator, options, rows, folder, frozen_texts=False):
    """A trainer that caches nothing."""
    model = make_model(options, rows["train"]["captions"][:])
    model.text_encoder.requires_grad_(not frozen_texts)
    model.text_encoder.frozen = frozen_texts
    images, texts = ImageInputs(model.image_encoder), TextInputs(model.text_encoder)
    loss = options.loss
    collator = AsymmetryCollator(texts, images, loss.positives, loss.negatives, 0)
    return Trainer(
        accelerator, model, make_loss(loss.loss), collator, rows["train"], rows["val"],
        Evaluator(model, images, texts), options, folder,
    )  # fmt: skip


def trainer(folder, fsdp, *more):
    """Over the same 8 drawn scenes every time; the text encoder is frozen."""
    options = resolve(parse_options([*OPTIONS, f"--output_dir={folder}", *more]))
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=options.train.gradient_accumulation_steps,
        kwargs_handlers=[ddp],
    )
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP")
    accelerator.state.fsdp_plugin = plugin if fsdp else None
    kind = DistributedType.FSDP if fsdp else DistributedType.MULTI_CPU
    accelerator.state.distributed_type = kind
    rows = {name: scenes.make(name, 8, 0) for name in ("train", "val")}
    folder.mkdir(exist_ok=True)
    return build(accelerator, options, rows, folder, frozen_texts=True)


def trained(folder, fsdp, *more):
    """What a run leaves and keeps, and whose its parameters are."""
    run = trainer(folder, fsdp, *more)
    held = sorted({type(p).__name__ for p in run.raw_model.fusion.parameters()})
    norms, clip = [], run.accelerator.clip_grad_norm_

    def noted(*arguments):
        norm = clip(*arguments)
        norms.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))

    run.accelerator.clip_grad_norm_ = noted
    run.fit()
    run.load_best()
    weights, state = load_checkpoint(checkpoints(folder)[-1])
    return {
        "weights": weights, "moments": state["optimizer"]["state"], "best": run.best,
        "frozen": sorted({type(p).__name__ for p in run.raw_model.text_encoder.parameters()}),
        "held": held, "norms": norms,
        "sims": run.evaluator.score(run.val_rows, ["a red circle", "a blue square"]),
    }  # fmt: skip


def one_process(rank, out):
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    out = Path(out)
    found = {"ddp": trained(out / "ddp", False), "fsdp": trained(out / "fsdp", True)}
    for before, after in (("ddp", "fsdp"), ("fsdp", "ddp")):  # each goes on where the other was
        folder = out / f"{after} after {before}"
        if rank == 0:
            shutil.copytree(out / before / "checkpoint-0000001", folder / "checkpoint-0000001")
            shutil.copytree(out / before / "best", folder / "best")
        dist.barrier()
        found[folder.name] = trained(folder, after == "fsdp", "--resume=True")
    try:
        trainer(out / "cached", True, "--cached_chunk=2")
    except ValueError as error:
        found["cached"] = str(error)
    torch.save(found, out / f"{rank}.pt")
    Accelerator().end_training()


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
