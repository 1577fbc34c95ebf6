"""The network of bottom-up attention: ResNet-101 C4, proposals, dilated res5, predictors.

Sub-modules carry the names that detectron2 gives them, so that published weights load by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu
from torchvision.ops import FrozenBatchNorm2d

SIZES, RATIOS = (64, 128, 256, 512), (0.5, 1.0, 2.0)  # of anchors: pixels, height / width


class ConvNorm(nn.Conv2d):
    """Convolution without bias, then frozen batch norm, its child `norm`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm = FrozenBatchNorm2d(outputs)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.norm(super().forward(input))


class Bottleneck(nn.Module):
    """Residual block as in Caffe: the stride is in the first 1 x 1 convolution."""

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = 4 * width
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if inputs != outputs else None
        self.conv1 = ConvNorm(inputs, width, 1, stride)
        self.conv2 = ConvNorm(width, width, 3, dilation=dilation)
        self.conv3 = ConvNorm(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, 4 width, H / stride, W / stride)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return relu(shortcut + self.conv3(relu(self.conv2(relu(self.conv1(x))))))


def stage(inputs: int, width: int, blocks: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """Return `blocks` bottlenecks, the first with the stride."""
    first = Bottleneck(inputs, width, stride, dilation)
    rest = (Bottleneck(4 * width, width, 1, dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class Stem(nn.Module):
    """7 x 7 convolution and Caffe's max pooling: not padded, the last window may stick out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, width, H / 4, W / 4)."""
        return max_pool2d(relu(self.conv1(x)), 3, stride=2, ceil_mode=True)


class Backbone(nn.Module):
    """Stem and stages up to res4, stride 16."""

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = Stem(width)
        self.res2 = stage(width, width, blocks[0], 1)
        self.res3 = stage(4 * width, 2 * width, blocks[1], 2)
        self.res4 = stage(8 * width, 4 * width, blocks[2], 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 16 width, H / 16, W / 16)."""
        return self.res4(self.res3(self.res2(self.stem(x))))


class AnchorGenerator(nn.Module):
    """Boxes of every size and ratio around every cell of the map.

    Anchors around the origin are a buffer under detectron2's name: a file of weights that brings
    its own replaces them.
    """

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float], stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.cell_anchors = nn.Module()
        self.cell_anchors.register_buffer("0", cell_anchors(sizes, ratios))

    def forward(self, height: int, width: int) -> Tensor:
        """Return (height * width * A, 4): cell by cell in rows, A anchors each."""
        anchors: Tensor = getattr(self.cell_anchors, "0")
        steps = [torch.arange(n, device=anchors.device) * self.stride for n in (height, width)]
        y, x = torch.meshgrid(*steps, indexing="ij")
        shifts = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        return (shifts + anchors).reshape(-1, 4)


def cell_anchors(sizes: Sequence[int], ratios: Sequence[float]) -> Tensor:
    """Return (sizes * ratios, 4) around the origin: area size squared, ratio height / width."""
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes)


class ProposalHead(nn.Module):
    """Objectness of every anchor, and the deltas that move it onto the object."""

    def __init__(self, inputs: int, hidden: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.objectness_logits = nn.Conv2d(hidden, anchors, 1)
        self.anchor_deltas = nn.Conv2d(hidden, 4 * anchors, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, h, w) to logits (N, h w A) and deltas (N, h w A, 4), in anchors' order."""
        hidden = relu(self.conv(features))
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(len(deltas), -1, 4)


class BoxPredictor(nn.Module):
    """Class of a region, the last one the background."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, classes + 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return class logits (R, C + 1)."""
        return self.cls_score(features)


class ProposalGenerator(nn.Module):
    """Anchors and the proposal head."""

    def __init__(self, inputs: int, stride: int) -> None:
        super().__init__()
        self.anchor_generator = AnchorGenerator(SIZES, RATIOS, stride)
        self.rpn_head = ProposalHead(inputs, 512, len(SIZES) * len(RATIOS))


class RegionHeads(nn.Module):
    """res5, which keeps the size of its input and dilates instead, and the predictor."""

    def __init__(self, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.res5 = stage(16 * width, 8 * width, blocks, 1, dilation=2)
        self.box_predictor = BoxPredictor(32 * width, classes)


class BottomUpNetwork(nn.Module):
    """All parameters, under detectron2's names, but for attributes and class-wise boxes.

    Args:
        width: channels of the stem; all other widths follow from it.
        blocks: numbers of blocks of res2, res3, res4, res5.
        classes: number of classes without background.
    """

    stride = 16

    def __init__(
        self,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 23, 3),
        classes: int = 1600,
    ) -> None:
        super().__init__()
        self.feature_dim = 32 * width
        self.backbone = Backbone(width, blocks)
        self.proposal_generator = ProposalGenerator(16 * width, self.stride)
        self.roi_heads = RegionHeads(width, blocks[3], classes)
