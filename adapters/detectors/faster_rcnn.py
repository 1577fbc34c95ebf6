"""Region features live, by torchvision's Faster R-CNNs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.detectors.detector import (
    Detections,
    RegionDetector,
    Size,
    exact,
    picture_box,
)
from ascl_plugin.adapters.frozen import PUBLISHED
from ascl_plugin.adapters.missing import needs
from ascl_plugin.spelling import did_you_mean

with needs("torchvision", "detection"):
    from torchvision.models import detection, get_model, get_model_weights, list_models
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import FrozenBatchNorm2d, roi_align

    from ascl_plugin.adapters.state_files import load_state, read_state

FEATURES = ("box_head", "c5")


class FasterRCNN(RegionDetector):
    """The K best boxes of torchvision's detectors, with a feature each.

    Boxes are the detector's own: proposals classified and regressed, NMS class by class over those
    above `min_score`, the K with the highest scores. The mask is False beyond
    the boxes found. A box's feature is the output of the box head
    ("box_head", 1024 wide), or the mean over the box of the backbone's last map, C5 ("c5": 2048
    wide in a ResNet-50, 960 in a MobileNet). The pooled feature is the mean of C5 over the picture.

    Args:
        model: a ``fasterrcnn_*`` of torchvision.
        weights: "pretrained", the weights torchvision publishes for the model, trained on COCO; or
            a file in torchvision's own names, as `read_state` takes it. None: random weights.
        num_regions: K.
        features: "box_head" or "c5".
        min_score: least score of a box.
        proposals: number of proposals that are classified; None: the model's own number.
        min_size, max_size: limits of the resized sides; None: the model's own.
        num_classes: number of classes of the weights, background included.
        images_at_once, precision: as in `RegionDetector`.

    Raises:
        ValueError: an unknown model, with the nearest name, or option; weights that do not fit.
        FileNotFoundError: no such checkpoint.
        OSError: weights="pretrained", and the server does not answer.
    """

    def __init__(
        self,
        model: str = "fasterrcnn_resnet50_fpn_v2",
        weights: str | None = None,
        num_regions: int = 36,
        features: str = "box_head",
        min_score: float = 0.05,
        proposals: int | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        num_classes: int = 91,
        images_at_once: int = 8,
        precision: str = "fp32",
    ) -> None:
        if features not in FEATURES:
            raise ValueError(f"features must be one of {', '.join(FEATURES)}, got {features!r}")
        net = _build(model, num_classes, num_regions, min_score, proposals)
        transform = net.transform
        super().__init__(
            model,
            num_regions,
            transform.min_size[-1] if min_size is None else min_size,
            transform.max_size if max_size is None else max_size,
            transform.size_divisible,
            images_at_once,
            precision,
        )
        self.features = features
        self.model = net
        if weights is not None:
            state = _published(model) if weights == PUBLISHED else read_state(weights)
            load_state(net, state, weights)
            if model == "fasterrcnn_resnet50_fpn":
                _without_epsilon(net.backbone)
        else:
            self._warn_of_random_weights()
        self.pooled_dim: int = net.backbone.fpn.inner_blocks[-1][0].in_channels
        head_dim: int = net.roi_heads.box_predictor.cls_score.in_features
        self.region_dim = head_dim if features == "box_head" else self.pooled_dim
        self._freeze()

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON: model, weights, options."""
        heads, rpn = self.model.roi_heads, self.model.rpn
        return self._fingerprint(
            num_regions=self.num_regions,
            features=self.features,
            min_score=heads.score_thresh,
            nms=[rpn.nms_thresh, heads.nms_thresh],
            proposals=rpn._post_nms_top_n["testing"],
        )

    def _normalise(self, pixels: Tensor) -> Tensor:
        return self.model.transform.normalize(pixels / 255)

    def _regions(self, batch: Tensor, sizes: list[Size]) -> list[Detections]:
        model, device = self.model, batch.device
        with self._layers(device):
            maps = model.backbone.body(batch.contiguous(memory_format=torch.channels_last))
            pyramid = {name: x.float() for name, x in model.backbone.fpn(maps).items()}
        c5 = list(maps.values())[-1].float()
        with exact(device):
            proposals, _ = model.rpn(ImageList(batch, sizes), pyramid)
        vectors = self._head(pyramid, proposals, sizes)
        with exact(device):
            logits, deltas = model.roi_heads.box_predictor(vectors)
            chosen = model.roi_heads.postprocess_detections(logits, deltas, proposals, sizes)
            kept = [_at_least_one(*one) for one in zip(*chosen, sizes, strict=True)]
            boxes = [of_picture for of_picture, _, _ in kept]
            pooled = _mean_over(c5, [picture_box(size, c5) for size in sizes], batch)
        if self.features == "box_head":
            vectors = self._head(pyramid, boxes, sizes)
        else:
            vectors = _mean_over(c5, boxes, batch)
        parts = vectors.split([len(b) for b in boxes])
        return [
            Detections(*best, vectors_of_one, pooled_of_one)
            for best, vectors_of_one, pooled_of_one in zip(kept, parts, pooled, strict=True)
        ]

    def _head(self, pyramid: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        """Return the box head's outputs for the boxes of all pictures."""
        heads = self.model.roi_heads
        with exact(boxes[0].device):
            pooled = heads.box_roi_pool(pyramid, boxes, sizes)
        with self._layers(pooled.device):
            return heads.box_head(pooled).float()


def _at_least_one(
    boxes: Tensor, scores: Tensor, labels: Tensor, size: Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes found; without any, the picture itself with score and label 0."""
    if len(boxes):
        return boxes, scores, labels
    return picture_box(size, boxes), scores.new_zeros(1), labels.new_zeros(1)


def _mean_over(c5: Tensor, boxes: list[Tensor], batch: Tensor) -> Tensor:
    """Return (boxes of all pictures, C): RoIAlign to 7 x 7, as for the box head, then the mean."""
    scale = c5.shape[-1] / batch.shape[-1]
    return roi_align(c5, boxes, 7, scale, sampling_ratio=2, aligned=True).mean((2, 3))


def _build(
    name: str, num_classes: int, num_regions: int, min_score: float, proposals: int | None
) -> Any:
    known = [n for n in list_models(module=detection) if n.startswith("fasterrcnn")]
    if name not in known:
        hint = did_you_mean(name, known, cutoff=0.3)
        raise ValueError(f"torchvision has no {name!r}{hint}; known: {', '.join(known)}")
    options = {} if proposals is None else {"rpn_post_nms_top_n_test": proposals}
    return get_model(
        name,
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        box_score_thresh=min_score,
        box_detections_per_img=num_regions,
        **options,
    )


def _published(name: str) -> dict[str, Tensor]:
    weights: Any = get_model_weights(name)
    try:
        return weights.DEFAULT.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        raise OSError(
            f"weights of {name!r} cannot be fetched from {weights.DEFAULT.url} ({error}); "
            "weights= takes a local file"
        ) from error


def _without_epsilon(backbone: nn.Module) -> None:
    """Set batch norm's epsilon to 0, with which torchvision trained the weights of this name."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.eps = 0.0
