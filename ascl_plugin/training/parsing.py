"""Options of a recipe read from a yaml file and from flags that override it."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import yaml

from ascl_plugin.spelling import did_you_mean
from ascl_plugin.training.arguments import COMPONENTS, GROUPS, NAMES, Component, Options
from ascl_plugin.training.option_help import help_text
from ascl_plugin.yaml_file import named, parse_yaml, read_yaml

try:
    from transformers import HfArgumentParser
except ImportError as error:
    raise ImportError('training needs `pip install "ascl-plugin[recipes]"`') from error

CONFIGS = Path(__file__).parents[1] / "recipes" / "configs"
MAX_VALUE = 4000  # characters of a value in a file: an error message repeats it

_AT_LEAST_ONE = (
    "batch_size", "epochs", "gradient_accumulation_steps", "eval_batch_size", "eval_every",
    "log_every", "stream_buffer", "num_regions", "lexical_minimum", "lexical_dim", "dim",
    "captions_per_image", "hard_every", "decay_every", "rerank_text_neighbors",
)  # fmt: skip
_SHARES = (  # in [0, 1]
    "wise_ft_alpha", "align_local_weight", "align_direction_weight",
)  # fmt: skip
_SHARES_BELOW_ONE = (
    "image_dropout", "text_dropout", "lexical_word_dropout", "ema_decay", "val_fraction",
    "test_fraction",
)  # fmt: skip
_ABOVE_ZERO = ("learning_rate", "balanced_temperature", "decay_factor")


class _Parser(HfArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}{'' if message[-1] in '?.' else '.'} See --help", file=sys.stderr)
        raise SystemExit(2)


def parse_options(
    argv: Sequence[str] | None = None,
    config: str | Path | Mapping[str, object] | None = None,
    description: str | None = None,
) -> Options:
    """Return options from `--config FILE` (or `config`), overridden by flags.

    A component is a name or a mapping. `--image_encoder.width 64`, or `image_encoder.width: 64` in
    a file, sets one option of it and keeps the others. `--help` prints the usual options with the
    values that they have, `--help-all` every option.

    Args:
        argv: flags (default: those of the command line).
        config: yaml file, or its content, that is read if there is no `--config`.
        description: first lines of `--help`.

    Raises:
        SystemExit: help was asked for (status 0); an unknown option (the message names the
            nearest), or a value that does not fit (2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    asked = {"--help", "-h", "--help-all", "--help_all"} & set(words)
    options = _parsed([word for word in words if word not in asked], config)
    if asked:
        print(f"{description.strip()}\n" if description else "")
        print(help_text(options, every=bool(asked - {"--help", "-h"})))
        raise SystemExit(0)
    return options


def _parsed(words: list[str], config: str | Path | Mapping[str, object] | None) -> Options:
    parser = _Parser(GROUPS, add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    rest, dotted = [], {}
    while words:
        word = words.pop(0)
        name, given, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (name == "config" or _is_dotted(name)):
            rest.append(word)
            continue
        if not given and words:
            value = words.pop(0)
        if not value:
            parser.error(f"argument --{name}: expected a {'file' if name == 'config' else 'value'}")
        if name == "config":
            config = value
        else:
            dotted[name] = value
    content = config if isinstance(config, Mapping) else _read(config, parser)
    *groups, _, unknown = parser.parse_args_into_dataclasses(
        _with_auto(_as_flags(content, parser) + rest),
        return_remaining_strings=True,
        look_for_args_file=False,
    )
    if unknown:
        flags = [word for word in unknown if word.startswith("--")] or unknown
        parser.error(_unknown(flags[0].lstrip("-").partition("=")[0]))
    for name, value in dotted.items():
        component, _, option = name.partition(".")
        for number, group in enumerate(groups):
            if hasattr(group, component):
                whole = {**getattr(group, component), option: _value(value)}
                groups[number] = replace(group, **{component: Component(whole)})
    options = Options(*groups)
    if faults := _out_of_range(options):
        parser.error("; ".join(faults))
    return options


def _out_of_range(options: Options) -> list[str]:
    """Return what is wrong with each number; all but `balanced_margin` are at least 0."""
    faults = []
    for name, got in options.flat().items():
        if isinstance(got, bool) or not isinstance(got, int | float) or name == "balanced_margin":
            continue
        if name in _ABOVE_ZERO:
            fits, expected = got > 0, "a number above 0"
        elif name in _SHARES:
            fits, expected = 0 <= got <= 1, "a number in [0, 1]"
        elif name in _SHARES_BELOW_ONE:
            fits, expected = 0 <= got < 1, "a number in [0, 1)"
        else:
            least = 1 if name in _AT_LEAST_ONE else 0
            fits, expected = got >= least, f"at least {least}"
        if not fits or got == math.inf:
            faults.append(f"argument --{name}: expected {expected}, got {got}")
    return faults


def _value(text: str) -> object:
    try:
        return parse_yaml(text, "value")
    except ValueError:
        return text


def _with_auto(words: list[str]) -> list[str]:
    """Return the flags with `--resume auto` as two flags that are on or off."""
    text = "\0".join(words)
    for given in ("--resume\0auto", "--resume=auto"):
        text = text.replace(given, "--resume=true\0--resume_auto=true")
    return text.split("\0") if text else []


def _is_dotted(name: str) -> bool:
    component, _, option = name.partition(".")
    return option != "" and component in COMPONENTS


def _read(path: str | Path | None, parser: argparse.ArgumentParser) -> Mapping[str, object]:
    if path is None:
        return {}
    try:
        content = read_yaml(named(path, CONFIGS))
    except FileNotFoundError:
        parser.error(f"--config {path}: no such file")
    except OSError as error:
        parser.error(f"--config {path}: {error.strerror}")
    except ValueError as error:
        parser.error(f"--config {error}")
    if not isinstance(content, dict):
        parser.error(f"--config {path}: expected options, 'name: value' a line")
    for name, value in content.items():
        if name not in NAMES and not _is_dotted(str(name)):
            parser.error(f"--config {path}: {_unknown(str(name)[:80])}")
        if len(str(value)) > MAX_VALUE:
            parser.error(f"--config {path}: {name} has more than {MAX_VALUE} characters")
    return content


def _as_flags(content: Mapping[str, object], parser: argparse.ArgumentParser) -> list[str]:
    """Return a file's options as flags, which the parser then checks like all others."""
    values = {k: v for k, v in content.items() if v is not None and not _is_dotted(k)}
    for name in filter(_is_dotted, content):
        component, _, option = name.partition(".")
        try:
            given = values.get(component) or parser.get_default(component)
            whole = Component(given if isinstance(given, dict) else str(given))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --{component}: {error}")
        values[component] = {**whole, option: content[name]}
    return [
        f"--{k}={yaml.safe_dump(v, default_flow_style=True) if isinstance(v, dict) else v}"
        for k, v in values.items()
    ]


def _unknown(name: str) -> str:
    asked = name.replace("-", "_")
    others = [n for n in NAMES if "".join(word[0] for word in n.split("_")) == asked]  # lr
    others += [n for n in NAMES if asked in n.split("_")]
    return f"unknown option {name!r}{did_you_mean(asked, NAMES, others)}"
