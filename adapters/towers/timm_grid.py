"""Image encoders of timm: the last feature map as a grid of regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.frozen import PUBLISHED, PretrainedEncoder
from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.towers.grid import grid_cells, grid_side
from ascl_plugin.features import ImageFeatures, concatenate

with needs("timm", "timm"):
    import timm
    from timm.data import create_transform, resolve_data_config

    from ascl_plugin.adapters.state_files import read_state

if TYPE_CHECKING:
    from PIL.Image import Image

CROPS = ("model", "none")
PRECISIONS = ("float32", "bf16")
CPU_BATCH = 8  # pictures that a CPU encodes at once: more leave its caches, and are slower

_PREPROCESSING = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")


class TimmGrid(PretrainedEncoder):
    """Any timm model with a spatial feature map: ResNets, EfficientNets, ConvNeXts, ViTs, Swins.

    The map of `forward_features` (of a ViT: its patch tokens, prefix tokens dropped) is averaged to
    a grid of sqrt(num_regions) cells a side, row by row, by adaptive average pooling: 7 x 7 becomes
    6 x 6 with cells that overlap, and a map coarser than the grid repeats its cells. The pooled
    feature is the model's own, the input of its classifier (`forward_head(pre_logits=True)`).

    The papers' regions come from a detector; a grid of as many cells stands in for them (36).

    Args:
        model: name, as `timm.create_model` takes it.
        weights: "pretrained", the weights timm publishes for the model; or a file, as `read_state`
            takes it. Where names differ from timm's, tensors are matched in order, if count and
            shapes agree. None: random weights.
        num_regions: K, a square.
        tune: "frozen" (always in evaluation mode) or "full".
        crop: "model", timm's evaluation transform of the model, which cuts the margins off; "none":
            the whole picture, resized to the model's input whatever its shape.
        image_size: pixels a side of the input; None: the model's own.
        precision: "float32", or "bf16": the encoder runs under autocast. On a CPU it is faster
            only with instructions for it (`torch.cpu.get_capabilities()` lists `avx512_bf16` or
            `amx_bf16`). Outputs are float32 either way.
        pooled_layers: names of modules inside the model ("blocks.5"); the means of their outputs
            over places follow the model's own pooled feature. Earlier layers know colours and
            textures that the last one, trained to name objects, has dropped.

    Attributes:
        preprocess: the evaluation transform, RGB picture -> (3, H, W).

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, K, region_dim), pooled (I, pooled_dim).

    Raises:
        ValueError: `num_regions` is no square; the model has no spatial map, or does not take
            `image_size`; the file does not fit; another `tune`, `crop` or `precision`.
        FileNotFoundError: no such file.
        RuntimeError: timm knows no such model.
        OSError: weights="pretrained", and the hub does not answer.

    >>> encoder = TimmGrid("resnet18", tune="full")
    >>> encoder(torch.zeros(2, 3, 224, 224)).regions.shape
    torch.Size([2, 36, 512])
    """

    preprocess: Callable[[Image], Tensor]

    def __init__(
        self,
        model: str = "resnet152",
        weights: str | None = None,
        num_regions: int = 36,
        tune: str = "frozen",
        crop: str = "model",
        image_size: int | None = None,
        precision: str = "float32",
        pooled_layers: Sequence[str] = (),
    ) -> None:
        super().__init__(model, tune)
        for name, value, known in (("crop", crop, CROPS), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.precision = precision
        self.side = grid_side(num_regions)
        # channels last: the layout that convolutions run fastest in, on CPUs 2 to 3 times
        self.model = _create(model, weights == PUBLISHED).to(memory_format=torch.channels_last)
        if weights is not None and weights != PUBLISHED:
            load_checkpoint(self.model, weights)
        elif self.frozen and weights is None:
            self._warn_of_random_weights()
        self.model.reset_classifier(0)  # else its weights would never get a gradient
        self.pooled_layers = list(pooled_layers)
        self._means: dict[str, Tensor] = {}  # of the layers, while a batch is encoded
        for layer in self.pooled_layers:
            self._layer(layer).register_forward_hook(partial(self._keep_mean, layer))
        size = {} if image_size is None else {"input_size": (3, image_size, image_size)}
        self.data_config = resolve_data_config(size, model=self.model)
        if crop == "none":
            self.data_config |= {"crop_pct": 1.0, "crop_mode": "squash"}
        self.preprocess = create_transform(**self.data_config, is_training=False)
        pixels = torch.zeros(1, *self.data_config["input_size"])
        try:
            self.region_dim, self.pooled_dim = self._probe(pixels)
        except (AssertionError, RuntimeError, ValueError) as error:
            if image_size is None:
                raise
            raise ValueError(
                f"{model} does not take image_size={image_size} ({str(error).splitlines()[0]}); "
                "leave it out for the model's own"
            ) from error

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return K cells and the pooled feature of each picture, float32."""
        # statistics of a batch in training mode need it whole
        whole = not self.frozen or pixel_values.device.type != "cpu"
        parts = [pixel_values] if whole else list(pixel_values.split(CPU_BATCH))
        with self.gradients():
            encoded = [self._encode(part) for part in parts]
        return encoded[0] if len(encoded) == 1 else concatenate(encoded)

    def _encode(self, pixel_values: Tensor) -> ImageFeatures:
        with self._autocast(pixel_values.device.type):
            features, pooled = self._features(pixel_values)
            means = [self._means.pop(layer) for layer in self.pooled_layers]
            pooled = torch.cat([pooled, *means], dim=1) if means else pooled
        if self.precision != "float32":
            features, pooled = features.float(), pooled.float()
        return ImageFeatures(grid_cells(self._map(features), self.side), None, pooled)

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device, torch.bfloat16)

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON: model, weights, preprocessing, grid."""
        config = {n: self.data_config[n] for n in _PREPROCESSING if n in self.data_config}
        # caches of before the option stay valid
        later: dict[str, object] = {}
        if self.precision != "float32":
            later["precision"] = self.precision
        if self.pooled_layers:
            later["pooled_layers"] = self.pooled_layers
        return self._fingerprint(num_regions=self.side**2, preprocessing=config, **later)

    def _layer(self, name: str) -> nn.Module:
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            raise ValueError(
                f"{self.model_name} has no module {name!r} for pooled_layers; its parts: "
                f"{', '.join(n for n, _ in self.model.named_children())}"
            ) from None

    def _keep_mean(self, layer: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._means[layer] = self._map(output).mean((2, 3))

    def _features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of `forward_features` and the pooled feature (I, pooled_dim)."""
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        features = self.model.forward_features(pixel_values)
        return features, self.model.forward_head(features, pre_logits=True)

    def _map(self, features: Tensor) -> Tensor:
        """Return the feature map as (I, C, h, w)."""
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features.permute(0, 3, 1, 2) if channels_last else features
        if features.ndim == 3:
            patches = features[:, getattr(self.model, "num_prefix_tokens", 0) :]
            side = math.isqrt(patches.shape[1])
            if side and side**2 == patches.shape[1]:
                return patches.transpose(1, 2).unflatten(2, (side, side))
        raise ValueError(
            f"{self.model_name} has no square feature map: forward_features gives "
            f"{tuple(features.shape)}"
        )


def _create(model: str, pretrained: bool) -> Any:
    try:
        return timm.create_model(model, pretrained=pretrained)
    except OSError as error:  # raised by the hub's client when it gets no answer
        raise OSError(
            f"weights of {model!r} cannot be fetched ({str(error).splitlines()[0]}); "
            "weights= takes a local file or package:NAME/path"
        ) from error


def load_checkpoint(model: nn.Module, path: str) -> None:
    """Load a state dict by name, or where names differ, by order; a classifier may be missing.

    Args:
        model: a timm model.
        path: of the file, as `read_state` takes it.

    Raises:
        FileNotFoundError, ValueError: as `read_state`; counts or shapes that differ: the message
            names the first tensor that does not fit.
    """
    given, own = _without_counters(read_state(path)), _without_counters(model.state_dict())
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{n}." for n in ([classifier] if isinstance(classifier, str) else classifier))
    body = [name for name in own if not heads or not name.startswith(heads)]
    if all(name in given for name in body):
        pairs = [(name, name) for name in body]
    elif len(own) == len(given):
        pairs = list(zip(own, given, strict=True))
    else:
        absent = next(name for name in body if name not in given)
        raise ValueError(
            f"{path} does not fit {type(model).__name__}: it lacks {absent!r} and has {len(given)} "
            f"tensors where the model has {len(own)}, so they cannot be matched in order either"
        )
    for ours, theirs in pairs:
        if own[ours].shape != given[theirs].shape:
            raise ValueError(
                f"{path} does not fit {type(model).__name__}: {theirs!r} has shape "
                f"{tuple(given[theirs].shape)}, {ours!r} needs {tuple(own[ours].shape)}"
            )
    model.load_state_dict({ours: given[theirs] for ours, theirs in pairs}, strict=False)


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
