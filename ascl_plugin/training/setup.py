"""From options to what a recipe starts with: folder, accelerator, data, first weights."""

from __future__ import annotations

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

from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.readers import read, require_splits
from ascl_plugin.disk import check_sums, put_back, write_text, writing
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.checkpoint import checkpoints
from ascl_plugin.training.lock import LOCK, locked
from ascl_plugin.training.sharding import refuse_engines

SAMPLE = 10_000  # images of a stream whose captions stand for all: vocabulary, noun phrases


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
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=args.mixed_precision,
        # given as a plugin, no flag of `accelerate launch` goes before the option
        gradient_accumulation_plugin=GradientAccumulationPlugin(args.gradient_accumulation_steps),
        log_with=None if args.log_with == "none" else args.log_with,
        project_dir=str(folder),
        kwargs_handlers=[
            # without fusion one of the two image projections is idle
            DistributedDataParallelKwargs(
                find_unused_parameters=options.model.fusion != "cross_modal"
                or args.align_epochs > 0
            ),
        ],
    )
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


def count_epochs(options: Options) -> None:
    """Epochs of a stream, which has no end: of `steps_per_epoch`, so many as make `max_steps`.

    Raises:
        ValueError: a stream without `max_steps`; `steps_per_epoch` without a stream.
    """
    args = options.train
    if options.data.train_stream is None:
        if args.steps_per_epoch:
            raise ValueError("--steps_per_epoch goes with --train_stream: an epoch has its own")
    elif not args.max_steps:
        raise ValueError("--train_stream has no end: --max_steps says after how many steps to stop")
    elif args.steps_per_epoch:
        args.epochs = -(-args.max_steps // args.steps_per_epoch)
    else:
        args.steps_per_epoch = -(-args.max_steps // args.epochs)


def load_splits(options: Options) -> Any:
    """`{"train", "val"}` and, where there is one, `"test"`: drawn scenes, or those of `data_root`.

    Instead of a split, "train" may be the `Lanes` of a stream.

    Raises:
        FileNotFoundError, ValueError: no train or no val split; what `read` and `Lanes` raise.
    """
    data, train = options.data, options.train
    streamed = {}
    if data.train_stream is not None:
        streamed["train"] = Lanes(
            data.train_stream, train.batch_size, "train", train.seed, data.stream_lanes,
            data.stream_buffer,
        )  # fmt: skip
    if data.data_root is not None:
        pictures = data.region_files is None
        splits = read(data.data_root, data.annotations, data.image_root, pictures)
        lacking = [name for name in ("train", "val") if name not in streamed]
        return {**require_splits(splits, lacking, data.data_root), **streamed}
    from ascl_plugin.data import scenes

    sizes = {"train": data.scenes_train, "val": data.scenes_val, "test": data.scenes_test}
    drawn = {k: scenes.make(k, n, data.scenes_seed) for k, n in sizes.items() if k not in streamed}
    return {**drawn, **streamed}


def training_captions(rows: Any) -> list[list[str]]:
    """All captions of each training image; of a stream, those of the first `SAMPLE` images."""
    if isinstance(rows, Lanes):
        return [row["captions"] for row in rows.sample(SAMPLE)]
    return list(rows["captions"][:])


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
