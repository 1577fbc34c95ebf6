"""From options to the things a recipe puts together: folder, data, model, loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ascl_plugin import registry
from ascl_plugin.data.readers import read, require_splits
from ascl_plugin.disk import check_sums, put_back, write_text, writing
from ascl_plugin.retrieval.encoders import WordTransformer
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.arguments import (
    DataArguments,
    LossArguments,
    ModelArguments,
    Options,
    mapping,
)
from ascl_plugin.training.checkpoint import checkpoints
from ascl_plugin.training.lock import LOCK, locked
from ascl_plugin.training.sharding import refuse_engines
from ascl_plugin.training.zero_options import process_group, zero_plugin


def find_files(options: Options) -> None:
    """Feature files as they are: a relative path starts at `data_root`, or where the program runs.

    "none", or `pooled_files` without `region_files`, is none.
    """
    data = options.data
    for name in ("region_files", "pooled_files"):
        given = getattr(data, name)
        if given in (None, "none") or data.region_files is None:
            setattr(data, name, None)
        elif data.data_root is not None and not Path(given).is_absolute():
            beside = Path(data.data_root) / given
            if beside.exists() or not Path(given).exists():
                setattr(data, name, str(beside))


def make_folder(options: Options, name: str) -> Path:
    """The run's folder: `output_dir`, or the first free `runs/NAME-n`.

    Raises:
        FileExistsError: `output_dir` holds a run and `resume` is off.
        FileNotFoundError: `resume` without `output_dir`.
    """
    args = options.train
    if args.output_dir is None:
        if args.resume:
            raise FileNotFoundError("--resume needs --output_dir: which run is to go on?")
        number = 1
        while (Path("runs") / f"{name}-{number}").exists():
            number += 1
        args.output_dir = str(Path("runs") / f"{name}-{number}")
    folder = Path(args.output_dir)
    _refuse_run(folder, args.resume)
    return folder


def _refuse_run(folder: Path, resume: bool) -> None:
    holds_run = (folder / "metrics.json").exists() or bool(checkpoints(folder))
    if holds_run and not resume:
        raise FileExistsError(f"{folder} holds a run; --resume goes on with it, or choose another")


def make_accelerator(options: Options, folder: Path) -> Accelerator:
    """The accelerator of a run in `folder`."""
    args = options.train
    refuse_engines()
    zero = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    plugin = zero_plugin(args) if zero else None
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision="no" if zero else args.mixed_precision,
        # given as a plugin, no flag of `accelerate launch` goes before the option
        gradient_accumulation_plugin=GradientAccumulationPlugin(args.gradient_accumulation_steps),
        log_with=None if args.log_with == "none" else args.log_with,
        project_dir=str(folder),
        deepspeed_plugin=plugin,
        kwargs_handlers=[
            # without fusion one of the two image projections is idle
            DistributedDataParallelKwargs(
                find_unused_parameters=options.model.fusion != "cross_modal"
                or args.align_epochs > 0
            ),
            *([process_group()] if zero else []),
        ],
    )
    if zero:  # transformers is to build its models as ever
        from transformers.integrations import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
    return accelerator


@contextmanager
def occupied(accelerator: Accelerator, options: Options, folder: Path) -> Iterator[None]:
    """The folder on disk, this run's alone until it ends, with its config.yaml and tracker.

    Raises:
        FileExistsError: another run is at work in it, or has ended there just now.
        OSError: it cannot be written.
    """
    with ExitStack() as stack:
        if accelerator.is_main_process:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / LOCK).touch()
            stack.enter_context(locked(folder))
            put_back(folder)
            _refuse_run(folder, options.train.resume)
            if not checkpoints(folder):  # what a run began with is what it goes on with
                write_text(folder / "config.yaml", yaml.safe_dump(options.flat(), sort_keys=False))
        accelerator.wait_for_everyone()
        plain = {k: v for k, v in options.flat().items() if isinstance(v, int | float | str)}
        accelerator.init_trackers("tensorboard", config=plain)
        yield


def load_splits(options: Options) -> Any:
    """`{"train", "val"}` and, where there is one, `"test"`: drawn scenes, or those of `data_root`.

    Raises:
        ValueError: no train or no val split.
    """
    data = options.data
    if data.data_root is not None:
        pictures = data.region_files is None
        splits = read(data.data_root, data.annotations, data.image_root, pictures)
        return require_splits(splits, ["train", "val"], data.data_root)
    from ascl_plugin.data import scenes

    sizes = {"train": data.scenes_train, "val": data.scenes_val, "test": data.scenes_test}
    return {name: scenes.make(name, size, data.scenes_seed) for name, size in sizes.items()}


def make_model(options: Options, captions: list[list[str]]) -> RetrievalModel:
    """The model, its weights drawn from the seed of the run.

    Args:
        options: of the run.
        captions: of the training images; the word transformer's vocabulary comes from them.
    """
    args = options.model
    image_encoder = {**_image_encoder(args, options.data), **mapping(args.image_options)}
    torch.manual_seed(options.train.seed)
    try:
        return RetrievalModel(
            image_encoder, _text_encoder(args, captions), _fusion(args), args.dim,
            args.feature_norm, args.align_local_weight, args.align_direction_weight,
        )  # fmt: skip
    except TypeError as error:
        if args.image_options and "unexpected keyword" in str(error):
            raise ValueError(f"--image_options: {error}") from error
        raise


def start_from(model: RetrievalModel, folder: str | None) -> None:
    """Puts the best weights of a finished run, or of a saved model, into the model.

    A fusion of another kind than the file's keeps its own weights: it has nothing to begin with.

    Raises:
        FileNotFoundError: there are none in `folder`.
        ValueError: they are of another model.
    """
    if folder is None:
        return
    paths = [Path(folder) / "best" / "model.safetensors", Path(folder) / "model.safetensors"]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"--start_from {folder}: no model here (no best/model.safetensors)")
    try:
        check_sums(found.parent)
        state, own = load_file(found), model.trained_state()
        if {k for k in state if k.startswith("fusion.")} != {
            k for k in own if k.startswith("fusion.")
        }:
            state = {k: v for k, v in state.items() if not k.startswith("fusion.")}
            state |= {k: v for k, v in own.items() if k.startswith("fusion.")}
        model.load_trained_state(state)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"--start_from {found}: {error}") from error


def make_loss(args: LossArguments) -> nn.Module:
    """The objective.

    Raises:
        ValueError: it has parameters of its own, which nothing here would train.
    """
    known: dict[str, dict[str, Any]] = {
        "ascl": {"temperature": args.temperature, "balance": args.balance, "form": args.form},
        "triplet": {"margin": args.margin, "balance": args.balance},
    }
    loss = registry.build("loss", args.loss, **known.get(args.loss, {}))
    parameters = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    learned = [name for name, weight in parameters if weight.requires_grad]
    if learned:
        raise ValueError(
            f"--loss {args.loss} learns {learned[0]!r}, and only the model's weights are trained"
        )
    return loss


def _image_encoder(args: ModelArguments, data: DataArguments) -> dict[str, Any]:
    if data.region_files is not None:
        files = {n: getattr(data, n) for n in ("region_files", "pooled_files")}
        inputs = registry.build(
            "image_inputs", "region_files", num_regions=args.num_regions, **files
        )
        return {
            "name": "region_files",
            "region_dim": inputs.region_dim,
            "pooled_dim": inputs.pooled_dim,
            "num_regions": args.num_regions,
        }
    if args.image_encoder == "grid":
        side = round(args.num_regions**0.5)
        if side * side != args.num_regions:
            raise ValueError(f"num_regions must be a square for a grid, got {args.num_regions}")
        return {"name": "grid", "width": args.encoder_width, "grid": side}
    weights: dict[str, Any] = {"name": args.image_encoder, "checkpoint_path": args.image_checkpoint}
    fetched = {**weights, "pretrained": args.image_pretrained}
    if args.image_model is not None:
        fetched["model_name"] = args.image_model
    if args.image_encoder == "timm_grid":
        return {**fetched, "num_regions": args.num_regions, "frozen": args.freeze_encoders}
    if args.image_encoder == "resnet":
        return {**fetched, "frozen": args.freeze_encoders}
    if args.image_encoder == "faster_rcnn":
        return {**fetched, "num_regions": args.num_regions}
    if args.image_encoder == "bottom_up":
        return {**weights, "num_regions": args.num_regions}
    if args.image_encoder == "transformers_clip":
        _require_model(args)
        return {
            "name": "transformers_clip",
            "model": args.image_model,
            "tune": "frozen" if args.freeze_encoders else args.tune,
            "num_regions": args.num_regions,
        }
    if args.image_encoder == "open_clip":
        return {**_open_clip(args), "num_regions": args.num_regions}
    return {"name": args.image_encoder}


def _text_encoder(args: ModelArguments, captions: list[list[str]]) -> dict[str, Any]:
    if args.text_encoder == "transformer":
        words = WordTransformer.vocabulary(c for several in captions for c in several)
        return {
            "name": "transformer",
            "vocabulary": words,
            "width": args.encoder_width,
            "max_words": args.max_words,
        }
    if args.text_encoder == "bert":
        return {
            "name": "bert",
            "model": args.text_model,
            "frozen": args.freeze_encoders,
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    if args.text_encoder == "transformers_clip":
        return {
            "name": "transformers_clip",
            "model": args.text_model,
            "tune": "frozen" if args.freeze_encoders else args.tune,
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    if args.text_encoder == "open_clip":
        return {
            **_open_clip(args),
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    return {"name": args.text_encoder}


def _open_clip(args: ModelArguments) -> dict[str, Any]:
    """What both towers are built with."""
    _require_model(args)
    return {
        "name": "open_clip",
        "model_name": args.image_model,
        "pretrained": args.image_checkpoint,
        "tune": "frozen" if args.freeze_encoders else args.tune,
    }


def _require_model(args: ModelArguments) -> None:
    if args.image_model is None:
        raise ValueError(f"image_encoder {args.image_encoder}: --image_model says which model")


def _fusion(args: ModelArguments) -> dict[str, Any]:
    if args.fusion == "cross_modal":
        return {
            "name": "cross_modal",
            "num_heads": args.num_heads,
            "attention": args.attention,
            "local_weight": args.local_weight,
            "direction_weight": args.direction_weight,
            "gate_bias": args.gate_bias,
        }
    return {"name": args.fusion} | ({"image": args.pooled_image} if args.fusion == "pooled" else {})
