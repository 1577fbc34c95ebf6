"""Proposals of bottom-up attention, and which regions are kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

Selected = tuple[Tensor, Tensor, Tensor]  # indices, scores and classes (k,), best first


def select_proposals(
    boxes: Tensor,
    logits: Tensor,
    size: tuple[int, int],
    before_nms: int,
    after_nms: int,
    threshold: float,
    min_side: float = 0.0,
) -> Tensor:
    """Return the likeliest objects of a picture (P, 4), best first.

    Args:
        boxes: (N, 4), moved anchors.
        logits: (N,), likelihood that a box holds an object.
        size: height and width of the picture; boxes are clipped to it.
        before_nms, after_nms: number of boxes that enter NMS, and that are kept.
        threshold: overlap above which the less likely of two is dropped.
        min_side: sides must be longer.
    """
    logits, order = logits.sort(descending=True, stable=True)
    boxes = clip_boxes_to_image(boxes[order[:before_nms]], size)
    large = (boxes[:, 2:] - boxes[:, :2] > min_side).all(1)
    boxes, logits = boxes[large], logits[:before_nms][large]
    return boxes[nms(boxes, logits, threshold)[:after_nms]]


def nms_each_class(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return (R, C) bool, True where box r survives NMS by the scores of class c.

    The boxes are the same for all classes, so overlaps are computed once and classes go side by
    side: R steps. `torchvision.ops.batched_nms` would take R * C boxes, 1,600 passes over half a
    million of them, and 2.7 times as long on a CPU.

    Args:
        boxes: (R, 4).
        scores: (R, C).
        threshold: overlap above which the lower score is dropped.
    """
    near = box_iou(boxes, boxes) > threshold
    order = scores.argsort(dim=0, descending=True, stable=True)
    rank = order.argsort(dim=0)
    classes = torch.arange(scores.shape[1], device=scores.device)
    kept = torch.ones_like(scores, dtype=torch.bool)
    for place, best in enumerate(order):  # (C,): the box at this rank in each class
        kept &= ~(near[:, best] & kept[best, classes] & (rank > place))
    return kept


def select_by_class(
    boxes: Tensor, scores: Tensor, threshold: float, confidence: float, fewest: int, most: int
) -> Selected:
    """Choose regions as for the published features (generate_tsv.py of Anderson et al.).

    A region's confidence is its highest score in a class in which it survives NMS. All regions
    from `confidence` on are kept, but at least `fewest` and at most `most` of the best.

    Args:
        boxes: (R, 4).
        scores: (R, C), without background.
        threshold: of NMS.
        confidence, fewest, most: limits, see above.
    """
    survived = scores * nms_each_class(boxes, scores, threshold)
    best, classes = survived.max(1)
    best, order = best.sort(descending=True, stable=True)
    count = min(max(int((best >= confidence).sum()), fewest), most)
    return order[:count], best[:count], classes[order[:count]]
