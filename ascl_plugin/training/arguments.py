"""Every option of a recipe: dataclasses, read from a yaml file and from flags that override it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ascl_plugin.asymmetry.embedding import NEGATIVES
from ascl_plugin.yaml_file import read_yaml

try:
    from transformers import HfArgumentParser
except ImportError as error:
    raise ImportError('training needs `pip install "ascl-plugin[recipes]"`') from error


def _option(default: Any, text: str, choices: Sequence[str] | None = None) -> Any:
    metadata: dict[str, Any] = {"help": text}
    if choices:
        metadata["choices"] = list(choices)
    return field(default=default, metadata=metadata)


@dataclass
class DataArguments:
    """Where pairs come from."""

    data_root: str | None = _option(
        None, "folder, Parquet file or hub id; without it, drawn scenes"
    )
    train_stream: str | None = _option(
        None,
        "training pairs that stream in: tar files in webdataset's layout ('shards/*.tar'), a "
        "folder or hub id that `datasets` streams; data_root or scenes then validate and test",
    )
    stream_lanes: int = _option(
        0, "train_stream: parts read side by side, each by the processes that need it; 0 = up to 8"
    )
    stream_buffer: int = _option(2048, "train_stream: rows in memory, shuffled among each other")
    annotations: str | None = _option(None, "captions file, where data_root holds several")
    image_root: str | None = _option(None, "folder of the images, where it is not data_root")
    region_files: str | None = _option(
        None,
        "file or folder of region features, in data_root or anywhere, which then stand for "
        "pictures and image_encoder; none: pictures",
    )
    pooled_files: str | None = _option(
        None, "with region_files: whole-image features; without it, the mean of the regions"
    )
    scenes_train: int = _option(4000, "drawn scenes to train on")
    scenes_val: int = _option(200, "drawn scenes to validate on")
    scenes_test: int = _option(500, "drawn scenes to test on")
    scenes_seed: int = _option(0, "seed of the drawing; the run has its own")
    captions_per_epoch: int = _option(0, "captions of each image seen in an epoch; 0 = all of them")
    cache_dir: str = _option(
        "~/.cache/ascl_plugin/features", "where outputs of frozen encoders are kept"
    )
    cache_images: bool = _option(True, "keep outputs of a frozen image encoder on disk")
    cache_texts: bool = _option(True, "keep outputs of a frozen text encoder on disk")
    num_workers: int = _option(0, "processes that prepare batches")


@dataclass
class ModelArguments:
    """Encoders and head."""

    image_encoder: str = _option(
        "grid",
        "registered name or dotted path: grid, timm_grid, resnet, faster_rcnn, bottom_up, "
        "open_clip, transformers_clip",
    )
    image_model: str | None = _option(
        None,
        "timm_grid, resnet: name of the timm model (resnet152); faster_rcnn: torchvision's name; "
        "open_clip: name of the model, both towers; transformers_clip: as text_model",
    )
    image_checkpoint: str | None = _option(
        None,
        "timm_grid, resnet, detectors: weights, a file or package:NAME/path; open_clip: those, or "
        "a tag, both towers",
    )
    image_pretrained: bool = _option(
        False, "timm_grid, resnet, faster_rcnn: fetch pretrained weights"
    )
    image_options: str | None = _option(
        None, "more options of the image encoder as yaml, e.g. {min_size: 400}"
    )
    num_regions: int = _option(36, "regions K of an image, a square for grids")
    text_encoder: str = _option(
        "transformer",
        "registered name or dotted path: transformer, bert, open_clip, transformers_clip",
    )
    text_model: str = _option(
        "bert-base-uncased", "bert, transformers_clip: hub id, folder or package:NAME/path"
    )
    max_words: int = _option(64, "longer texts are cut")
    keep_special_tokens: bool = _option(True, "keep [CLS] and [SEP], or their like, as words")
    freeze_encoders: bool = _option(True, "leave weights of pretrained encoders as they are")
    tune: str = _option(
        "full",
        "freeze_encoders off: what trains of open_clip (and, lora apart, of transformers_clip)",
        ["partial", "lora", "full"],
    )
    encoder_width: int = _option(64, "grid, transformer: width of the small encoders")
    fusion: str = _option("cross_modal", "cross_modal, pooled (no fusion), or a dotted path")
    pooled_image: str = _option(
        "regions", "pooled: what stands for an image", ["regions", "pooled"]
    )
    dim: int = _option(1024, "joint width D")
    num_heads: int = _option(8, "attention heads H")
    attention: str = _option("projected", "attention", ["projected", "parameter-free"])
    local_weight: float = _option(0.8, "u2: weight of the local score")
    direction_weight: float = _option(0.5, "u1: weight of regions-to-words in the local score")
    gate_bias: float = _option(0.0, "of the fusion's gate at the start; below 0 the pooled leads")
    align_local_weight: float = _option(
        1.0, "align_epochs: weight of words and regions against wholes"
    )
    align_direction_weight: float = _option(
        0.0, "align_epochs: weight of regions-to-words in the local score"
    )
    feature_norm: str = _option("layer", "of projected features", ["layer", "l2", "none"])


@dataclass
class LossArguments:
    """The objective and what is generated for it."""

    loss: str = _option("ascl", "ascl, triplet, or a dotted path")
    temperature: float = _option(0.05, "ascl: divides the scores")
    form: str = _option("nll", "ascl: -log of each ratio, or minus the ratio", ["nll", "ratio"])
    margin: float = _option(0.2, "triplet: margin of the hinge")
    balance: float = _option(0.5, "weight of L_I against L_II&III")
    positives: str = _option(
        "mixed", "generated positives", ["concatenate", "truncate", "mixed", "none"]
    )
    negatives: str = _option("mixture", "generated negatives", list(NEGATIVES))
    noise_strength: float | None = _option(None, "of the negatives; each noise has its own default")


@dataclass
class TrainArguments:
    """How the weights move, and what is kept of it."""

    output_dir: str | None = _option(None, "folder of the run; default: the first free runs/NAME-n")
    resume: bool = _option(False, "go on from the last checkpoint in output_dir")
    start_from: str | None = _option(
        None,
        "folder of a finished run, whose best weights training starts from; its encoders and "
        "widths must be this run's",
    )
    seed: int = _option(0, "of weights, order of data, captions, augmentation and noise")
    batch_size: int = _option(64, "pairs in a batch, over all processes")
    epochs: int = _option(20, "passes over the data, as captions_per_epoch counts them")
    steps_per_epoch: int = _option(
        0, "train_stream, which has no end: steps that count as an epoch; 0 = max_steps / epochs"
    )
    align_epochs: int = _option(0, "first epochs: captions alone, by late interaction; cheap")
    max_steps: int = _option(0, "stop after so many steps, if epochs have more; 0 = no limit")
    learning_rate: float = _option(5e-4, "at the start, after warm-up")
    encoder_learning_rate: float = _option(
        0.0, "of encoders that train; decays like learning_rate; 0 = learning_rate"
    )
    align_learning_rate: float = _option(0.0, "of the first align_epochs; 0 = learning_rate")
    optimizer: str = _option("adam", "optimiser", ["adam", "adamw"])
    weight_decay: float = _option(0.0, "of the optimiser")
    schedule: str = _option("step", "of the learning rate", ["step", "cosine", "constant"])
    decay_every: int = _option(10, "step: epochs between decays")
    decay_factor: float = _option(0.9, "step: what the rate is multiplied with")
    final_learning_rate: float = _option(0.0, "cosine: rate at the end")
    warmup_steps: int = _option(0, "steps over which the rate rises to learning_rate")
    max_grad_norm: float = _option(0.0, "gradients are clipped to this norm; 0 = never")
    gradient_accumulation_steps: int = _option(
        1, "batches a step; no more negatives, only averages"
    )
    cached_chunk: int = _option(
        0,
        "images and texts encoded at once for a batch that memory cannot hold, each twice; 0 = all",
    )
    skip_bad_batches: int = _option(
        0, "steps left out where loss or gradient is not finite, at most so many; one more ends it"
    )
    mixed_precision: str = _option("no", "arithmetic", ["no", "bf16", "fp16"])
    cpu: bool = _option(False, "stay on the CPU though there is a GPU")
    num_threads: int = _option(0, "CPU threads of torch; 0 = torch's own choice")
    eval_batch_size: int = _option(128, "images or texts encoded at once")
    eval_every: int = _option(1, "epochs between validations")
    patience: int = _option(0, "stop after so many validations without a better Rsum; 0 = never")
    save_every: int = _option(500, "steps between checkpoints; one more at the end of an epoch")
    log_every: int = _option(20, "steps between lines in log.jsonl and the tracker")
    log_with: str = _option("tensorboard", "tracker of Accelerate, or none")
    save_scores: bool = _option(False, "write scores_SPLIT.npy (images, texts) at the end")
    rerank_k: int = _option(20, "candidates that re-ranking reorders")
    rerank_text_neighbors: int = _option(1, "texts in a neighbourhood, the text itself included")


_AT_LEAST_ONE = (
    "batch_size", "epochs", "gradient_accumulation_steps", "eval_batch_size", "eval_every",
    "log_every", "stream_buffer",
)  # fmt: skip
_AT_LEAST_ZERO = (
    "cached_chunk", "skip_bad_batches", "max_steps", "steps_per_epoch", "stream_lanes",
)  # fmt: skip
GROUPS: tuple[Any, ...] = (DataArguments, ModelArguments, LossArguments, TrainArguments)


@dataclass
class Options:
    """All groups of one run."""

    data: DataArguments
    model: ModelArguments
    loss: LossArguments
    train: TrainArguments

    def flat(self) -> dict[str, Any]:
        """Every option by name, as `config.yaml` holds it."""
        groups = (self.data, self.model, self.loss, self.train)
        return {name: value for group in groups for name, value in asdict(group).items()}


def parse_options(
    argv: Sequence[str] | None = None,
    default_config: str | Path | None = None,
    description: str | None = None,
) -> Options:
    """Options from `--config FILE` (or `default_config`), overridden by flags.

    Args:
        argv: flags; of the command line by default.
        default_config: yaml file read when no `--config` is given.
        description: what `--help` says first.

    Raises:
        SystemExit: an unknown option, with the nearest name there is; a value that does not fit.
    """
    parser = HfArgumentParser(GROUPS, description=description, allow_abbrev=False)
    parser.add_argument("--config", help="yaml file with any of these options; flags override it")
    argv = list(sys.argv[1:] if argv is None else argv)
    config, rest = default_config, []
    words = iter(argv)
    for word in words:
        if word == "--config":
            config = next(words, "")
        elif word.startswith("--config="):
            config = word.partition("=")[2]
        else:
            rest.append(word)
    if config == "":
        parser.error("argument --config: expected a file")
    from_file = [] if config is None else _as_flags(Path(config), parser)
    *groups, _, unknown = parser.parse_args_into_dataclasses(
        from_file + rest, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        flags = [word for word in unknown if word.startswith("--")] or unknown
        parser.error(_unknown(flags[0].lstrip("-").partition("=")[0]))
    options = Options(*groups)
    for names, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
        for name in names:
            if (value := options.flat()[name]) < least:
                parser.error(f"argument --{name}: expected at least {least}, got {value}")
    return options


def _as_flags(path: Path, parser: HfArgumentParser) -> list[str]:
    """The file's options as flags, so that both are checked by the same parser."""
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
    flags = []
    for name, value in content.items():
        if name not in _names():
            parser.error(f"--config {path}: {_unknown(str(name)[:80])}")
        if len(str(value)) > 4000:  # which the message of a value that does not fit repeats
            parser.error(f"--config {path}: {name} has more than 4000 characters")
        if value is not None:
            flags.append(f"--{name}={value}")
    return flags


def _names() -> list[str]:
    return [f.name for group in GROUPS for f in fields(group)]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _names(), n=1)
    return f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
