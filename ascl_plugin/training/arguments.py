"""Options of a recipe, as dataclasses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ascl_plugin.asymmetry import NEGATIVES, POSITIVES
from ascl_plugin.retrieval.lexical import LEXICAL
from ascl_plugin.yaml_file import parse_yaml

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
    text_draws: int = _option(
        0,
        "epochs after which the generated texts of a caption come again, encoded once if the text "
        "encoder is frozen and cached (0: never)",
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
    freeze_wholes: bool = _option(
        False, "train words and regions alone; wholes stay as start_from has them"
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
    num_threads: int = _option(0, "number of CPU threads (0: cores / processes)")
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
