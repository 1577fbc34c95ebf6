"""Base of detectors as image encoders: pictures of any size in, the K best regions of each out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ascl_plugin.adapters.frozen import PretrainedEncoder
from ascl_plugin.features import ImageFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Detections:
    """The k regions of one picture, best first; k is at least 1.

    Args:
        boxes: (k, 4), x0 y0 x1 y1 in pixels of the picture as it was given.
        scores: (k,) in [0, 1]; 0 for a region that is no detection.
        labels: (k,) int64, class numbers of the detector.
        features: (k, D).
        pooled: (D_p,), feature of the picture as one region.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    features: Tensor
    pooled: Tensor


class RegionDetector(PretrainedEncoder):
    """Base of detectors as image encoders; always frozen, for choosing boxes has no gradient.

    `preprocess` resizes for the detector (shorter side to `min_size`, longer side at most
    `max_size`) and puts the result into the corner of a square, so that pictures stack; a fourth
    channel marks the picture. `forward` cuts the picture out again. Only pictures of one size go
    through the network together: a picture's regions do not depend on its batch.

    A picture in which nothing is found has one region, itself.

    Args:
        model: name of the detector.
        num_regions: K, maximum number of regions of a picture.
        min_size, max_size: limits of the resized sides, in pixels.
        divisor: sides are padded to a multiple of it.
        images_at_once: maximum number of pictures in one pass of the network; bounds memory.
        precision: precision of the network's layers by autocast: "fp32", "bf16" or "fp16"; box
            arithmetic is always fp32.

    Shapes:
        pixel_values (I, 4, S, S) -> regions (I, K, region_dim), mask (I, K) or None when all are
        real, pooled (I, pooled_dim).
    """

    TUNE = ("frozen",)
    rounding = 0.0  # added to a resized side before it is cut to a whole number
    region_dim: int
    pooled_dim: int

    def __init__(
        self,
        model: str,
        num_regions: int,
        min_size: int,
        max_size: int,
        divisor: int,
        images_at_once: int,
        precision: str,
    ) -> None:
        super().__init__(model)
        if num_regions < 1 or images_at_once < 1 or min_size < 1 or max_size < 1:
            raise ValueError(
                "num_regions, images_at_once, min_size and max_size must be at least 1, got "
                f"{num_regions}, {images_at_once}, {min_size}, {max_size}"
            )
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.num_regions, self.images_at_once = num_regions, images_at_once
        self.min_size, self.max_size, self.divisor = min_size, max_size, divisor
        self.precision = precision

    def _fingerprint(self, **options: object) -> dict[str, object]:
        size = (self.min_size, self.max_size)
        return super()._fingerprint(size=size, precision=self.precision, **options)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Return the network's input for RGB pixels (3, H, W) in [0, 255]."""
        raise NotImplementedError

    def _regions(self, batch: Tensor, sizes: list[Size]) -> list[Detections]:
        """Detect in pictures (N, 3, H, W) padded right and below; `sizes` are without padding."""
        raise NotImplementedError

    def preprocess(self, picture: Image) -> Tensor:
        """Return (4, S, S): three channels resized and normalised, then 1 where the picture is."""
        pixels = self._resized(picture)
        height, width = pixels.shape[-2:]
        side = self._padded(self.max_size)
        canvas = pixels.new_zeros(4, side, side)
        canvas[:3, :height, :width] = pixels
        canvas[3, :height, :width] = 1
        return canvas

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return K regions and the pooled feature of each picture, from `preprocess`'s canvases."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 4:
            raise ValueError(
                "pixel_values must be (I, 4, S, S), stacked from preprocess, got "
                f"{tuple(pixel_values.shape)}"
            )
        inside = pixel_values[:, 3]
        heights, widths = inside[:, :, 0].sum(1).long(), inside[:, 0].sum(1).long()
        sizes = zip(heights.tolist(), widths.tolist(), strict=True)
        pictures = [x[:3, :h, :w] for x, (h, w) in zip(pixel_values, sizes, strict=True)]
        found = self._detect(pictures)
        counts = torch.tensor([len(d.features) for d in found], device=pixel_values.device)
        regions = pad_sequence([d.features for d in found], batch_first=True)
        regions = functional.pad(regions, (0, 0, 0, self.num_regions - regions.shape[1]))
        mask = torch.arange(self.num_regions, device=counts.device) < counts[:, None]
        pooled = torch.stack([d.pooled for d in found])
        return ImageFeatures(regions, None if bool(mask.all()) else mask, pooled)

    @torch.no_grad()
    def detect(self, pictures: Sequence[Image]) -> list[Detections]:
        """Return the regions of each picture, boxes in its own pixels.

        Args:
            pictures: RGB and upright, as `ascl_plugin.data.images.load_image` returns them.
        """
        device = next(self.parameters()).device
        resized = [self._resized(picture).to(device) for picture in pictures]
        found = self._detect(resized)
        scaled = []
        for picture, pixels, detections in zip(pictures, resized, found, strict=True):
            height, width = pixels.shape[-2:]
            x, y = picture.width / width, picture.height / height
            boxes = detections.boxes * detections.boxes.new_tensor([x, y, x, y])
            edge = boxes.new_tensor([picture.width, picture.height] * 2)  # rounding may cross it
            scaled.append(replace(detections, boxes=boxes.minimum(edge)))
        return scaled

    def _resized(self, picture: Image) -> Tensor:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
        size = self._resized_size((picture.height, picture.width))
        # without antialiasing, as all the detectors were trained
        return functional.interpolate(self._normalise(pixels)[None], size, mode="bilinear")[0]

    def _resized_size(self, size: Size) -> Size:
        scale = min(self.min_size / min(size), self.max_size / max(size))
        height, width = (max(int(side * scale + self.rounding), 1) for side in size)
        return height, width

    def _padded(self, side: int) -> int:
        return math.ceil(side / self.divisor) * self.divisor

    def _detect(self, pictures: list[Tensor]) -> list[Detections]:
        """Detect in pictures (3, H, W) of any sizes; those of one padded size go together."""
        sizes: list[Size] = [(x.shape[-2], x.shape[-1]) for x in pictures]
        groups: dict[Size, list[int]] = {}
        for index, (height, width) in enumerate(sizes):
            groups.setdefault((self._padded(height), self._padded(width)), []).append(index)
        found: dict[int, Detections] = {}
        for (height, width), members in groups.items():
            for start in range(0, len(members), self.images_at_once):
                part = members[start : start + self.images_at_once]
                batch = [
                    functional.pad(pictures[i], (0, width - sizes[i][1], 0, height - sizes[i][0]))
                    for i in part
                ]
                outputs = self._regions(torch.stack(batch), [sizes[i] for i in part])
                found.update(zip(part, outputs, strict=True))
        return [found[index] for index in range(len(pictures))]

    def _layers(self, device: torch.device) -> AbstractContextManager[object]:
        """Return a context for the network's layers: `precision`; for fp32, as outside."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device.type, dtype) if dtype else nullcontext()


def exact(device: torch.device) -> torch.autocast:
    """Return a context for box arithmetic, in fp32: bf16 puts 1,000 pixels off by 4."""
    return torch.autocast(device.type, enabled=False)


def picture_box(size: Size, like: Tensor) -> Tensor:
    """Return the picture itself as a box, (1, 4)."""
    height, width = size
    return like.new_tensor([[0.0, 0.0, width, height]])
