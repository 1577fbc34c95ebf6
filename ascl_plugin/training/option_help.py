"""The text of `--help`: options with the values that they have."""

from __future__ import annotations

import textwrap
from dataclasses import Field, fields

import yaml

from ascl_plugin.training.arguments import (
    Component,
    DataArguments,
    LossArguments,
    ModelArguments,
    Options,
    TrainArguments,
)

#: The options that most runs need; `--help-all` shows the others.
USUAL = (
    "data_root", "train_stream", "image_root", "region_files", "val_fraction",
    "captions_per_image", "cache_dir", "image_encoder", "text_encoder", "fusion", "dim", "loss",
    "positives", "negatives", "balanced_pairs", "output_dir", "resume", "start_from", "seed",
    "batch_size", "epochs", "max_steps", "learning_rate", "mixed_precision", "num_threads",
    "eval_every", "patience", "log_with", "save_scores", "rerank_k",
)  # fmt: skip
_WIDTH, _COLUMN = 100, 32  # characters of a line, and before its explanation
_FEW = 5  # choices that the usual help lists


def help_text(options: Options, every: bool = False) -> str:
    """Return the usual options, or every one, each with its value and what it means."""
    groups: dict[str, DataArguments | ModelArguments | LossArguments | TrainArguments] = {
        "Data": options.data, "Model": options.model, "Loss": options.loss,
        "Training": options.train,
    }  # fmt: skip
    lines = ["Options, with the values that they have here (--OPTION VALUE sets one, or --config):"]
    for title, group in groups.items():
        lines += ["", title]
        for field in fields(group):
            if every or field.name in USUAL:
                lines += _lines(field, getattr(group, field.name), every)
    lines += ["", "--config FILE      yaml file of options, or the name of one that comes along"]
    if not every:
        lines.append("--help-all         every option")
    return "\n".join(lines)


def _lines(field: Field[object], value: object, every: bool) -> list[str]:
    explained, choices = str(field.metadata["help"]), field.metadata.get("choices", ())
    if choices and (every or len(choices) <= _FEW):
        explained += f"; one of {', '.join(choices)}"
    begin = f"  --{field.name} {_shown(value)}"
    indent = " " * _COLUMN
    text = textwrap.wrap(explained, _WIDTH - _COLUMN)
    if len(begin) < _COLUMN:
        return [begin.ljust(_COLUMN) + text[0], *(indent + line for line in text[1:])]
    return [begin, *(indent + line for line in text)]


def _shown(value: object) -> str:
    """Return a value as a flag would give it."""
    if isinstance(value, Component):
        if len(value) == 1:
            return value.name
        return yaml.safe_dump(
            dict(value), default_flow_style=True, sort_keys=False, width=9999
        ).strip()
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
