"""Options resolved: files found, epochs counted, folder chosen, components checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from typing_extensions import Unpack, get_type_hints, is_typeddict

from ascl_plugin import registry
from ascl_plugin.spelling import did_you_mean
from ascl_plugin.training.arguments import (
    Component,
    DataArguments,
    LossArguments,
    Options,
    TrainArguments,
)


@dataclass(frozen=True)
class Resolved(Options):
    """Options as a run uses them; `resolve` makes them of what a user gave."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.train.output_dir or "")


def resolve(options: Options, name: str = "run") -> Resolved:
    """Return the options of a run; nothing is written, and the same options give the same result.

    Args:
        options: options as parsed.
        name: name of the default folder, the first free `runs/NAME-n`.

    Raises:
        FileNotFoundError: `resume` without `output_dir`.
        ValueError: a stream without `max_steps`, `steps_per_epoch` without a stream, options that
            cannot be combined, or an option that a component does not have.
        KeyError, ImportError: a component that cannot be had; see `registry.resolve`.
    """
    data, model, loss = _with_files(options.data), options.model, options.loss
    checks: list[Callable[[], object]] = [
        lambda: _refuse_combinations(data, options.train),
        lambda: _check_loss(loss, data, options.train),
        lambda: check_options("text_encoder", model.text_encoder),
        lambda: _check_fusion(model.fusion, model.dim),
        lambda: _check_built("loss", loss.loss),
        lambda: _check_tracker(options.train.log_with),
        lambda: _with_epochs(options.train, data.train_stream),
    ]
    if data.region_files is None:
        checks.insert(2, lambda: check_options("image_encoder", model.image_encoder))
    all_of(checks)
    train = _with_folder(_with_epochs(options.train, data.train_stream), name)
    return Resolved(data, options.model, options.loss, train)


def all_of(checks: Sequence[Callable[[], object]]) -> None:
    """Run every check, and raise what is wrong in one error.

    Raises:
        ValueError: several checks failed; the message lists all. One alone raises its own error.
    """
    errors: list[Exception] = []
    for check in checks:
        try:
            check()
        except (ValueError, TypeError, KeyError, ImportError, OSError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        told = [str(e.args[0]) if isinstance(e, KeyError) else str(e) for e in errors]
        raise ValueError(f"{len(errors)} options cannot be used: {'; '.join(told)}")


def _check_loss(loss: LossArguments, data: DataArguments, train: TrainArguments) -> None:
    if loss.balanced_pairs and data.train_stream is not None:
        raise ValueError(
            "--balanced_pairs cannot be combined with --train_stream: a pair needs two images "
            "whose captions are known before"
        )
    if loss.hard_pairs and (loss.positives not in ("join", "none") or loss.negatives != "none"):
        raise ValueError(
            "hard_pairs scores captions alone, or joined: set --positives none or join, and "
            "--negatives none"
        )
    if loss.positives == "join" and data.captions_per_image == 1:
        raise ValueError("--positives join needs --captions_per_image of at least 2")
    if loss.hard_pairs and train.cached_chunk:
        raise ValueError("hard_pairs and cached_chunk cannot be combined")


def _check_built(kind: str, component: Component, **options: object) -> None:
    """Check options, and their values by building the component without its numbers."""
    check_options(kind, component)
    named = {k: v for k, v in component.items() if k != "name"}
    with torch.device("meta"):
        registry.build(kind, component.name, **{**named, **options})


def _check_fusion(fusion: Component, dim: int) -> None:
    names = option_names(registry.resolve("fusion", fusion.name)) or ()
    _check_built("fusion", fusion, **({"dim": dim} if "dim" in names else {}))


def _check_tracker(name: str) -> None:
    """Check that the package of a tracker is installed; Accelerate would log nothing."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = [str(tracker) for tracker in LOGGER_TYPE_TO_CLASS]
    if name not in ("none", "all", *known):
        raise ValueError(f"--log_with {name}: no tracker; there are none, all, {', '.join(known)}")
    if name in known and name not in [str(tracker) for tracker in get_available_trackers()]:
        raise ImportError(f"--log_with {name}: {name} is not installed: pip install {name}")


def _refuse_combinations(data: DataArguments, train: TrainArguments) -> None:
    several = data.captions_per_image > 1
    for option, given, other, there, cure in (
        ("captions_per_image", several, "train_stream", data.train_stream is not None,
         "a stream shows one caption of an image at a time"),
        ("captions_per_image", several, "cached_chunk", train.cached_chunk > 0,
         "gradient caching cuts batches into pairs"),
        ("dense_captions", data.dense_captions is not None, "train_stream",
         data.train_stream is not None, "they are looked up by image before the first batch"),
        ("mirror_views", data.mirror_views, "region_files", data.region_files is not None,
         "files hold no mirror images"),
        ("average_views", train.average_views, "region_files", data.region_files is not None,
         "files hold no mirror images"),
    ):  # fmt: skip
        if given and there:
            raise ValueError(f"--{option} cannot be combined with --{other}: {cure}")


def check_options(kind: str, component: Component) -> None:
    """Check that the component takes the options it is given.

    Raises:
        ValueError: it has no such option; the message lists its options.
        KeyError, ImportError: as of `registry.resolve`.
    """
    known = option_names(registry.resolve(kind, component.name))
    if known is None:
        return
    for option in component.keys() - {"name", *known}:
        raise ValueError(
            f"{kind} {component.name!r} has no option {option!r}{did_you_mean(option, known)}; "
            f"its options: {', '.join(known) or 'none'}"
        )


def option_names(component: registry.Component) -> list[str] | None:
    """Return the options a component takes, those of `**options: Unpack[TypedDict]` included.

    None: it takes any, or their names cannot be read.
    """
    names = []
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
            continue
        function = component.__init__ if isinstance(component, type) else component  # type: ignore[misc]
        try:  # adapters import Unpack for type checkers alone
            hints = get_type_hints(function, localns={"Unpack": Unpack})
        except (NameError, TypeError):
            return None
        several = next(iter(get_args(hints.get(parameter.name))), None)
        if not is_typeddict(several):
            return None
        names += several.__annotations__
    return names


def _with_files(data: DataArguments) -> DataArguments:
    """Find feature files: a relative path starts at `data_root`, else at the working directory."""

    def found(given: str | None) -> str | None:
        if given in (None, "none") or data.region_files is None:
            return None
        if data.data_root is None or Path(given).is_absolute():
            return given
        beside = Path(data.data_root) / given
        return str(beside) if beside.exists() or not Path(given).exists() else given

    regions = found(data.region_files)
    return replace(data, region_files=regions, pooled_files=regions and found(data.pooled_files))


def _with_epochs(train: TrainArguments, stream: str | None) -> TrainArguments:
    """Count the epochs of a stream, which has no end, from `max_steps`."""
    if stream is None:
        if train.steps_per_epoch:
            raise ValueError("--steps_per_epoch needs --train_stream: other data have epochs")
        return train
    if not train.max_steps:
        raise ValueError("--train_stream has no end: --max_steps says after how many steps to stop")
    if train.steps_per_epoch:
        return replace(train, epochs=-(-train.max_steps // train.steps_per_epoch))
    return replace(train, steps_per_epoch=-(-train.max_steps // train.epochs))


def _with_folder(train: TrainArguments, name: str) -> TrainArguments:
    """Choose the run's folder: `output_dir`, or the first free `runs/NAME-n`."""
    if train.output_dir is not None:
        return train
    if train.resume:
        raise FileNotFoundError("--resume needs --output_dir: which run is to go on?")
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return replace(train, output_dir=str(folder))
