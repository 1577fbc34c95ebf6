"""Options of a recipe: dataclasses, read from a yaml file and from flags that override it."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ascl_plugin.asymmetry import NEGATIVES, POSITIVES
from ascl_plugin.retrieval.lexical import LEXICAL
from ascl_plugin.yaml_file import parse_yaml, read_yaml

try:
    from transformers import HfArgumentParser
except ImportError as error:
    raise ImportError('training needs `pip install "ascl-plugin[recipes]"`') from error

MAX_VALUE = 4000  # characters of a value in a file: an error message repeats it
_EXPONENT = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)


def _number(value: object) -> object:
    """Return the number that yaml 1.1 takes for a string, as 5e-4."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


class Component(dict[str, object]):
    """A component by name with options of its own: `{"name": ..., **options}`.

    Args:
        given: the name alone, or the whole as yaml: `{name: grid, width: 64}`.
    """

    def __init__(self, given: str | Mapping[str, object]) -> None:
        try:
            found = parse_yaml(given, "value") if isinstance(given, str) else dict(given)
        except ValueError:
            found = None
        if isinstance(found, str):
            found = {"name": given}
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            raise argparse.ArgumentTypeError(
                f"expected NAME or {{name: NAME, option: value, ...}}, got {str(given)[:200]!r}"
            )
        super().__init__({k: _number(v) for k, v in found.items()})

    @property
    def name(self) -> str:
        """The name."""
        return str(self["name"])


def _option(default: object, text: str, choices: Sequence[str] | None = None) -> Any:
    metadata = {"help": text} | ({"choices": list(choices)} if choices else {})
    if isinstance(default, Component):
        return field(default_factory=lambda: Component(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataArguments:
    """Training pairs, features and caches."""

    data_root: str | None = _option(
        None, "folder, table, pattern of tar files, or hub id (none: drawn scenes)"
    )
    train_stream: str | None = _option(
        None,
        "streamed training pairs: tar files in webdataset's layout ('shards/*.tar') or a folder of "
        "them, or a folder or hub id that `datasets` streams; data_root or scenes then validate "
        "and test",
    )
    stream_lanes: int = _option(0, "train_stream: parts read side by side (0: up to 8)")
    stream_buffer: int = _option(2048, "train_stream: rows of the shuffle buffer")
    skip_bad: bool = _option(
        False, "leave out samples of tar files without picture or captions, and count them"
    )
    annotations: str | None = _option(None, "captions file, if data_root has several")
    image_root: str | None = _option(None, "folder of the images (default: data_root)")
    val_fraction: float = _option(0.0, "data of one split: share of images that validate")
    test_fraction: float = _option(0.0, "data of one split: share of images that test")
    region_files: str | None = _option(
        None,
        "file or folder of region features, relative to data_root or absolute; they replace "
        "pictures and image_encoder ('none': pictures)",
    )
    pooled_files: str | None = _option(
        None, "region_files: whole-image features (default: the mean of the regions)"
    )
    num_regions: int = _option(36, "region_files: maximum number of regions K of an image")
    scenes_train: int = _option(4000, "number of drawn training scenes")
    scenes_val: int = _option(200, "number of drawn validation scenes")
    scenes_test: int = _option(500, "number of drawn test scenes")
    scenes_seed: int = _option(0, "seed of the drawn scenes")
    dense_captions: str | None = _option(
        None,
        "JSON of image id -> long text or texts, in the place of concatenation in positives; of "
        "one that the text encoder would cut, as many sentences as it reads",
    )
    captions_per_epoch: int = _option(0, "captions of each image in an epoch (0: all)")
    captions_per_image: int = _option(
        1, "captions of each image in a batch; batch_size then counts images"
    )
    mirror_views: bool = _option(
        False, "mirror half of the training images, drawn anew each epoch; caches both views"
    )
    cache_dir: str = _option(
        "~/.cache/ascl_plugin/features", "folder of the cached outputs of frozen encoders"
    )
    cache_images: bool = _option(True, "cache the outputs of a frozen image encoder")
    cache_texts: bool = _option(True, "cache the outputs of a frozen text encoder")
    feature_memory: float = _option(
        4.0,
        "GiB of cached features that a process keeps in memory, of images and of texts each; the "
        "rest is read from the cache in each batch",
    )
    num_workers: int = _option(0, "number of data-loading processes per rank")


@dataclass(frozen=True)
class ModelArguments:
    """Encoders, projections and scorer."""

    image_encoder: Component = _option(  # noqa: RUF009
        Component("grid"),
        "image encoder: NAME or {name: NAME, option: value, ...}; --image_encoder.OPTION VALUE "
        "sets one option; the components below likewise",
    )
    text_encoder: Component = _option(Component("transformer"), "text encoder")  # noqa: RUF009
    fusion: Component = _option(Component("cross_modal"), "scorer of pairs (pooled: no fusion)")  # noqa: RUF009
    dim: int = _option(1024, "joint width D")
    align_local_weight: float = _option(
        1.0, "align_epochs: weight of the local score against the pooled one"
    )
    align_direction_weight: float = _option(
        0.0, "align_epochs: weight of regions-to-words in the local score"
    )
    feature_norm: str = _option("layer", "norm of projected features", ["layer", "l2", "none"])
    projection: str = _option(
        "linear",
        "projection of pooled images and texts (none: the encoders share a space of width dim)",
        ["linear", "none"],
    )
    image_dropout: float = _option(0.0, "dropout on the outputs of the image encoder")
    text_dropout: float = _option(0.0, "dropout on the outputs of the text encoder")
    input_norm: str = _option(
        "none",
        "frozen encoders: norm of their outputs by training mean and deviation; sqrt_standard: of "
        "square roots on the image side",
        ["none", "standard", "sqrt_standard"],
    )
    text_pool: str = _option(
        "none",
        "pooled text beside the words, by a projection of its own (none: the mean word)",
        ["none", "mean", "max", "mean_max", "gpo"],
    )
    lexical: str = _option(
        "none",
        "words by name beside it: a learned bag of the training captions' words, or their latent "
        "semantics",
        LEXICAL,
    )
    lexical_dim: int = _option(512, "lexical lsa: number of dimensions")
    lexical_minimum: int = _option(2, "lexical: occurrences that a word needs")
    lexical_word_dropout: float = _option(
        0.0, "lexical bag: words left out in training, as a share"
    )


@dataclass(frozen=True)
class LossArguments:
    """The objective, and the positives and negatives generated for it."""

    loss: Component = _option(Component("ascl"), "loss")  # noqa: RUF009
    positives: str = _option(
        "mixed",
        "generated positives (join: with captions_per_image, two captions that are encoded alone)",
        POSITIVES,
    )
    negatives: str = _option("mixture", "generated negatives", list(NEGATIVES))
    noise_strength: float | None = _option(
        None, "strength of the negatives' noise (default: each noise's own)"
    )
    hard_pairs: int = _option(
        0,
        "with a fusion of a plain and a local score: all pairs of a batch are scored by the plain "
        "part, and by the whole the right ones and this many hardest wrong ones, for each image "
        "and its first caption (0: all by the whole; at least batch_size: all by both)",
    )
    other_pairs: int = _option(0, "hard_pairs: and this many pairs at random for each image")
    hard_every: int = _option(1, "hard_pairs: of every so many-th image of a batch alone")
    hard_weight: float = _option(1.0, "hard_pairs: weight of their loss beside that of all pairs")
    balanced_pairs: int = _option(
        0,
        "balanced half-truths in a batch, beside its captions: two images, and two texts that each "
        "are true of one (0: none)",
    )
    balanced_weight: float = _option(1.0, "balanced_pairs: weight of their loss")
    balanced_kinds: str = _option(
        "added, replaced noun, replaced attribute",
        "balanced_pairs: their kinds, of these and swapped",
    )
    balanced_sides: str = _option(
        "both",
        "balanced_pairs: an image is to prefer its text (image); and a text its image (both)",
        ["image", "both"],
    )
    balanced_temperature: float = _option(0.05, "balanced_pairs: temperature of their loss")
    balanced_margin: float = _option(0.0, "balanced_pairs: margin of their loss")
    balanced_focal: float = _option(0.0, "balanced_pairs: exponent of its focal factor")


@dataclass(frozen=True)
class TrainArguments:
    """Optimization, validation, checkpoints and logs."""

    output_dir: str | None = _option(
        None, "folder of the run (default: the first free runs/NAME-n)"
    )
    resume: bool = _option(
        False,
        "continue from the last checkpoint in output_dir, which has to be there; --resume auto: "
        "or start anew",
    )
    resume_auto: bool = _option(False, "what --resume auto sets beside resume")
    start_from: str | None = _option(
        None,
        "folder of a finished run with the same encoders and widths; training starts from its "
        "best weights",
    )
    seed: int = _option(0, "seed of weights, data order, captions, augmentation and noise")
    batch_size: int = _option(
        64, "pairs in a batch, over all ranks; images, if captions_per_image is above 1"
    )
    epochs: int = _option(20, "number of epochs")
    steps_per_epoch: int = _option(
        0, "train_stream: optimizer steps in an epoch (0: max_steps / epochs)"
    )
    align_epochs: int = _option(
        0, "number of first epochs that score captions alone, by late interaction"
    )
    max_steps: int = _option(0, "maximum number of optimizer steps (0: no limit)")
    learning_rate: float = _option(5e-4, "initial learning rate, after warm-up")
    encoder_learning_rate: float = _option(
        0.0, "initial learning rate of encoders that train (0: learning_rate)"
    )
    align_learning_rate: float = _option(
        0.0, "initial learning rate of the align_epochs (0: learning_rate)"
    )
    optimizer: str = _option("adam", "optimizer", ["adam", "adamw"])
    weight_decay: float = _option(0.0, "weight decay of the optimizer")
    schedule: str = _option("step", "learning-rate schedule", ["step", "cosine", "constant"])
    decay_every: int = _option(10, "schedule step: epochs between decays")
    decay_factor: float = _option(0.9, "schedule step: factor of a decay")
    final_learning_rate: float = _option(0.0, "schedule cosine: final learning rate")
    warmup_steps: int = _option(0, "number of warm-up steps")
    max_grad_norm: float = _option(0.0, "norm that gradients are clipped to (0: no clipping)")
    ema_decay: float = _option(
        0.0, "decay of the moving average of weights, which is validated and saved (0: off)"
    )
    wise_ft_alpha: float = _option(
        1.0,
        "weights validated and saved: this share of the trained ones, the rest of those that "
        "training started from (1: off)",
    )
    gradient_accumulation_steps: int = _option(
        1, "batches in an optimizer step; gradients are averaged, negatives not added"
    )
    cached_chunk: int = _option(
        0,
        "gradient caching, for batches larger than memory: pairs encoded at once, each twice "
        "(0: off)",
    )
    skip_bad_batches: int = _option(
        0, "maximum number of steps skipped for a loss or gradient that is not finite"
    )
    mixed_precision: str = _option("no", "precision: no (fp32), bf16 or fp16")
    cpu: bool = _option(False, "use the CPU even if there is a GPU")
    num_threads: int = _option(0, "number of CPU threads of torch (0: torch's default)")
    eval_batch_size: int = _option(128, "images or texts encoded at once in evaluation")
    eval_every: int = _option(1, "epochs between validations")
    average_views: bool = _option(
        False, "evaluation: mean score of each image and its mirror image"
    )
    patience: int = _option(
        0, "maximum number of validations without a better Rsum before training stops (0: no limit)"
    )
    save_every: int = _option(
        500, "optimizer steps between checkpoints, besides those at the end of epochs"
    )
    log_every: int = _option(20, "optimizer steps between lines of the log and the tracker")
    log_with: str = _option("tensorboard", "tracker of Accelerate, or none")
    save_scores: bool = _option(False, "write scores_SPLIT.npy (images, texts) at the end")
    rerank_k: int = _option(20, "re-ranking: number of candidates (0: no re-ranking)")
    rerank_text_neighbors: int = _option(
        1, "re-ranking: texts in a neighborhood, the text itself included"
    )


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
GROUPS: tuple[Any, ...] = (DataArguments, ModelArguments, LossArguments, TrainArguments)
NAMES = [f.name for group in GROUPS for f in fields(group)]
COMPONENTS = ("image_encoder", "text_encoder", "fusion", "loss")


@dataclass(frozen=True)
class Options:
    """All options of a run."""

    data: DataArguments
    model: ModelArguments
    loss: LossArguments
    train: TrainArguments

    def flat(self) -> dict[str, object]:
        """Return every option by name, as `config.yaml` holds it."""
        found: dict[str, object] = {}
        for group in (self.data, self.model, self.loss, self.train):
            for name in (f.name for f in fields(group)):
                value = getattr(group, name)
                found[name] = dict(value) if isinstance(value, Component) else value
        return found


def parse_options(
    argv: Sequence[str] | None = None,
    config: str | Path | Mapping[str, object] | None = None,
    description: str | None = None,
) -> Options:
    """Return options from `--config FILE` (or `config`), overridden by flags.

    A component is a name or a mapping. `--image_encoder.width 64`, or `image_encoder.width: 64` in
    a file, sets one option of it and keeps the others.

    Args:
        argv: flags (default: those of the command line).
        config: yaml file, or its content, that is read if there is no `--config`.
        description: first lines of `--help`.

    Raises:
        SystemExit: an unknown option (the message names the nearest); a value that does not fit.
    """
    parser = HfArgumentParser(GROUPS, description=description, allow_abbrev=False)
    parser.add_argument("--config", help="yaml file of options; flags override it")
    rest, dotted = [], {}
    words = list(sys.argv[1:] if argv is None else argv)
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
        content = read_yaml(path)
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
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
