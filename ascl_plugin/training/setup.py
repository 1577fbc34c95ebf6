"""Accelerator, folder, data and first weights of a run, from its resolved options."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from datasets import Dataset
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from ascl_plugin.data.dense_captions import DENSE, read_dense_captions, with_dense_captions
from ascl_plugin.data.images import check_pictures
from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.readers import read, require_splits
from ascl_plugin.disk import check_sums, put_back, write_text, writing
from ascl_plugin.retrieval.inputs import TextInputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.threads import use_cores
from ascl_plugin.training.checkpoint import checkpoints, dotted
from ascl_plugin.training.resolve import Resolved
from ascl_plugin.training.sharding import refuse_engines

LOCK = ".run.lock"
PROJECT = "ascl_plugin"  # name that trackers file runs under
SAMPLE = 10_000  # images of a stream whose captions stand for all: vocabulary, noun phrases


def make_accelerator(options: Resolved) -> Accelerator:
    """Return the accelerator of a run.

    Raises:
        ValueError: an engine that is not supported.
    """
    args = options.train
    refuse_engines()
    use_cores(args.num_threads)
    # without fusion one of the two image projections is idle
    idle = options.model.fusion.name != "cross_modal" or args.align_epochs > 0
    return Accelerator(
        cpu=args.cpu,
        mixed_precision=args.mixed_precision,
        # given as a plugin, no flag of `accelerate launch` goes before the option
        gradient_accumulation_plugin=GradientAccumulationPlugin(args.gradient_accumulation_steps),
        log_with=None if args.log_with == "none" else args.log_with,
        project_dir=str(options.folder),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle)],
    )


def refuse_finished(folder: Path, resume: bool) -> None:
    """Check that a folder does not hold a run, unless it is to be resumed.

    Raises:
        FileExistsError: it does.
    """
    holds_run = (folder / "metrics.json").exists() or bool(checkpoints(folder))
    if holds_run and not resume:
        raise FileExistsError(f"{folder} holds a run; --resume goes on with it, or choose another")


@contextmanager
def occupied(accelerator: Accelerator, options: Resolved) -> Iterator[None]:
    """Make the run's folder with config.yaml and tracker, and lock it until the run ends.

    Raises:
        FileExistsError: another run uses it, or has ended there just now.
        OSError: it cannot be written.
    """
    folder = options.folder
    with ExitStack() as stack:
        if accelerator.is_main_process:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / LOCK).touch()
            stack.enter_context(locked(folder))
            put_back(folder)
            refuse_finished(folder, options.train.resume)
            if options.train.resume and not (options.train.resume_auto or checkpoints(folder)):
                raise FileNotFoundError(
                    f"--resume: no checkpoint in {folder}; --resume auto starts anew where there "
                    "is none"
                )
            if not checkpoints(folder):  # a resumed run keeps the options it began with
                write_text(folder / "config.yaml", yaml.safe_dump(options.flat(), sort_keys=False))
        accelerator.wait_for_everyone()
        plain = {
            k: v for k, v in dotted(options.flat()).items() if isinstance(v, int | float | str)
        }
        names = {"wandb": {"name": folder.name}}
        accelerator.init_trackers(PROJECT, config=plain, init_kwargs=names)
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel frees when the process ends, however it ends.

    Raises:
        FileExistsError: another process holds it; the message names it.
    """
    path = folder / LOCK
    try:
        lock = FileLock(path, timeout=0).acquire()
    except Timeout as error:
        holder = " ".join(path.read_text()[:200].split()) or "another process"
        raise FileExistsError(
            f"{folder} is in use by {holder}; wait until that run ends, stop it (kill PID "
            "leaves a checkpoint), or choose another output_dir"
        ) from error
    with lock:
        with suppress(PermissionError):  # on Windows the lock keeps writers out
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield


def load_splits(options: Resolved) -> dict[str, Dataset | Lanes]:
    """Return the splits "train", "val" and, if there is one, "test".

    They are those of `data_root`, else drawn scenes; "train" is `Lanes` if it is streamed.

    Raises:
        FileNotFoundError, ValueError: there is no train or val split; as of `read` and `Lanes`.
    """
    data, train = options.data, options.train
    streamed: dict[str, Dataset | Lanes] = {}
    if data.train_stream is not None:
        streamed["train"] = Lanes(
            data.train_stream, train.batch_size, "train", train.seed, data.stream_lanes,
            data.stream_buffer, data.skip_bad,
        )  # fmt: skip
    if data.data_root is not None:
        pictures = data.region_files is None
        splits = read(
            data.data_root, data.annotations, data.image_root, pictures, data.val_fraction,
            data.test_fraction, data.skip_bad,
        )  # fmt: skip
        if pictures:
            check_pictures(splits)
        lacking = [name for name in ("train", "val") if name not in streamed]
        return {**require_splits(splits, lacking, data.data_root), **streamed}
    from ascl_plugin.data import scenes

    sizes = {"train": data.scenes_train, "val": data.scenes_val, "test": data.scenes_test}
    drawn = {k: scenes.make(k, n, data.scenes_seed) for k, n in sizes.items() if k not in streamed}
    return {**drawn, **streamed}


def training_captions(rows: Dataset | Lanes) -> Sequence[Sequence[str]]:
    """Return the captions of each training image; of a stream, of its first `SAMPLE` images."""
    if isinstance(rows, Lanes):
        return [row["captions"] for row in rows.sample(SAMPLE)]
    return list(rows["captions"][:])


def with_dense(rows: Dataset | Lanes, path: str | None, texts: TextInputs) -> Dataset | Lanes:
    """Return training rows with their dense captions, of a file or a column, in parts that fit.

    Raises:
        FileNotFoundError, ValueError: as of `read_dense_captions` and `with_dense_captions`.
    """
    if isinstance(rows, Lanes) or (path is None and DENSE not in rows.column_names):
        return rows
    given = {} if path is None else read_dense_captions(path)
    return with_dense_captions(rows, given, lambda text: not texts.count_cut([text]))


def freeze_wholes(model: RetrievalModel) -> None:
    """Leave the projections of whole images and texts as they are; words and regions train.

    Raises:
        ValueError: no projection would be left that trains.
    """
    if model.wholes_only:
        raise ValueError("freeze_wholes: this fusion scores wholes alone, so nothing would train")
    if model.text_pool is None:
        raise ValueError("freeze_wholes needs a text_pool; without one no text is a whole")
    for layer in (model.pooled_projection, model.text_projection):
        layer.requires_grad_(False)


def start_from(model: RetrievalModel, folder: str | None) -> None:
    """Load the best weights of a finished run, or those of a saved model, into the model.

    A fusion of another kind than the file's keeps its own weights. Statistics of `input_norm` that
    the file lacks, of words and regions if it has wholes alone, are taken from training data.

    Raises:
        FileNotFoundError: `folder` has no weights.
        ValueError: they are another model's.
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
        theirs, ours = ({k for k in s if k.startswith("fusion.")} for s in (state, own))
        if theirs != ours:
            state = {k: v for k, v in state.items() if k not in theirs} | {k: own[k] for k in ours}
        state |= {k: own[k] for k in own.keys() - state.keys() if k.startswith("input_norms.")}
        model.load_trained_state(state)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"--start_from {found}: {error}") from error
