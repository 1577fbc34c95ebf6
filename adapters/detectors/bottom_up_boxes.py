"""Box arithmetic of bottom-up attention: decoding, proposals, which regions are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

# detectron2, box_regression.py: no box grows by more than from 16 to 1000 pixels at once
MAX_GROWTH = math.log(1000 / 16)


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes moved and scaled: (R, B, 4) deltas dx dy dw dh, (R, 4) boxes -> (R, B, 4).

    A centre moves by dx widths and dy heights, sides grow by exp(dw), exp(dh), each delta divided
    by its weight first (Faster R-CNN, section 3.1.2).
    """
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(-1)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides / 2
    width, height = sides[:, :1], sides[:, 1:]
    x, y = centres[:, :1] + dx * width, centres[:, 1:] + dy * height
    half_width = dw.clamp(max=MAX_GROWTH).exp() * width / 2
    half_height = dh.clamp(max=MAX_GROWTH).exp() * height / 2
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def select_proposals(
    boxes: Tensor,
    logits: Tensor,
    size: tuple[int, int],
    before_nms: int,
    after_nms: int,
    threshold: float,
    min_side: float = 0.0,
) -> Tensor:
    """The likeliest objects of a picture, best first.

    Args:
        boxes: (N, 4), moved anchors.
        logits: (N,) of being an object.
        size: height and width of the picture; boxes are clipped to it.
        before_nms, after_nms: how many are looked at, and kept.
        threshold: overlap above which the less likely of two is dropped.
        min_side: sides must be longer.

    Returns:
        (P, 4).
    """
    logits, order = logits.sort(descending=True, stable=True)
    boxes = clip_boxes_to_image(boxes[order[:before_nms]], size)
    large = (boxes[:, 2:] - boxes[:, :2] > min_side).all(1)
    boxes, logits = boxes[large], logits[:before_nms][large]
    return boxes[nms(boxes, logits, threshold)[:after_nms]]


def nms_each_class(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression of the same boxes by each class's scores.

    Overlaps are worked out once for all classes, and classes go side by side.

    Args:
        boxes: (R, 4).
        scores: (R, C).
        threshold: overlap above which the lower score is dropped.

    Returns:
        (R, C) bool, True where box r is kept in class c.
    """
    near = box_iou(boxes, boxes) > threshold
    order = scores.argsort(dim=0, descending=True, stable=True)
    kept = torch.ones_like(scores, dtype=torch.bool)
    classes = torch.arange(scores.shape[1], device=scores.device)
    rank = torch.empty_like(order)
    places = torch.arange(len(order), device=order.device)[:, None].expand_as(order)
    rank.scatter_(0, order, places)
    for place, best in enumerate(order):  # (C,): each class's box of this rank
        alive = kept[best, classes]
        kept &= ~(near[:, best] & alive & (rank > place))
    return kept


def select_by_class(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    confidence: float,
    fewest: int,
    most: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Regions as the published features were chosen (generate_tsv.py of Anderson et al.).

    A region's confidence is its highest score in a class in which it survives NMS. Kept are all
    above `confidence`, or as many of the best as `fewest` and `most` ask for.

    Args:
        boxes: (R, 4).
        scores: (R, C), without background.

    Returns:
        Indices (k,), scores (k,) and classes (k,), best first.
    """
    survived = scores * nms_each_class(boxes, scores, threshold)
    best, classes = survived.max(1)
    best, order = best.sort(descending=True, stable=True)
    count = min(max(int((best >= confidence).sum()), fewest), most)
    return order[:count], best[:count], classes[order[:count]]


def select_by_best_class(
    boxes: Tensor, scores: Tensor, thresholds: Sequence[float], fewest: int, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Regions as py-bottom-up-attention and the LXMERT demo choose them.

    One NMS over all regions by their highest scores, more lenient by and by until `fewest` are
    left; the last threshold counts whatever it leaves.

    Args:
        boxes: (R, 4), each as its best class moved it.
        scores: (R, C), without background.

    Returns:
        Indices (k,), scores (k,) and classes (k,), best first.
    """
    best, classes = scores.max(1)
    kept = torch.empty(0, dtype=torch.long)
    for threshold in thresholds:
        kept = nms(boxes, best, threshold)[:most]
        if len(kept) >= fewest:
            break
    return kept, best[kept], classes[kept]
