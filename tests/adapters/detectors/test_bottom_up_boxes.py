"""Box arithmetic of bottom-up attention, against torchvision or values worked out by hand."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchvision")
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import nms

from ascl_plugin.adapters.detectors.bottom_up_boxes import (
    select_by_class,
    select_proposals,
)


def random_boxes(count, seed, side=100.0):
    torch.manual_seed(seed)
    corners = torch.rand(count, 2) * side
    return torch.cat([corners, corners + torch.rand(count, 2) * side / 2 + 1], 1)


def test_proposals_are_those_of_torchvision():
    boxes = random_boxes(200, 0) - 20
    logits = torch.randn(200)
    theirs = RegionProposalNetwork(
        None, None, 0.7, 0.3, 1, 0.5, {"testing": 150}, {"testing": 30}, 0.7
    ).eval()
    expected, _ = theirs.filter_proposals(boxes[None], logits, [(90, 110)], [200])
    torch.testing.assert_close(
        select_proposals(boxes, logits, (90, 110), 150, 30, 0.7), expected[0]
    )


def test_small_proposals_are_dropped():
    boxes = torch.tensor([[0.0, 0, 20, 20], [50, 50, 60, 90], [90, 90, 130, 130], [0, 0, 0, 9]])
    logits = torch.tensor([1.0, 4.0, 3.0, 2.0])
    kept = select_proposals(boxes, logits, (100, 100), 9, 9, 0.7, min_side=9.0)
    assert kept.tolist() == [[50, 50, 60, 90], [90, 90, 100, 100], [0, 0, 20, 20]]
    kept = select_proposals(boxes, logits, (100, 100), 9, 9, 0.7, min_side=15.0)
    assert kept.tolist() == [[0, 0, 20, 20]]


# ---------------------------------------------------------------- which regions are kept


# Two boxes that overlap by 0.6, one apart. Class 0 is surest of box 0, class 1 of box 1.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [50, 50, 60, 60]])
SCORES = torch.tensor([[0.9, 0.1], [0.5, 0.4], [0.05, 0.15]])


def test_selection_by_class():
    """Box 0 survives in class 0 (.9). Box 1 falls there, and survives in class 1 (.4), where box 0
    falls. Box 2 survives in both, .15 in class 1."""
    order, best, classes = select_by_class(BOXES, SCORES, 0.3, 0.2, 1, 3)
    assert (order.tolist(), classes.tolist()) == ([0, 1], [0, 1])
    torch.testing.assert_close(best, torch.tensor([0.9, 0.4]))
    order, best, classes = select_by_class(BOXES, SCORES, 0.3, 0.2, 3, 3)  # at least 3
    assert (order.tolist(), classes.tolist()) == ([0, 1, 2], [0, 1, 1])
    torch.testing.assert_close(best[2], torch.tensor(0.15))
    assert select_by_class(BOXES, SCORES, 0.3, 0.2, 1, 1)[0].tolist() == [0]  # at most 1
    assert select_by_class(BOXES, SCORES, 0.3, 0.1, 1, 3)[0].tolist() == [0, 1, 2]


@given(st.integers(1, 20), st.sampled_from([(1, 4), (4, 4), (2, 30)]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_selection_by_class_as_the_paper_does_it(count, limits, seed):
    """One class after the other; the published order is that of proposals or of scores."""
    boxes, scores = random_boxes(count, seed, side=30), torch.rand(count, 5) * 0.4
    confidence = [0.0] * count
    for number in range(5):
        for index in nms(boxes, scores[:, number], 0.3).tolist():
            confidence[index] = max(confidence[index], scores[index, number].item())
    best_first = sorted(range(count), key=lambda i: -confidence[i])
    expected = [i for i in best_first if confidence[i] >= 0.3]
    if len(expected) < limits[0]:
        expected = best_first[: limits[0]]
    found, best, _ = select_by_class(boxes, scores, 0.3, 0.3, *limits)
    assert found.tolist() == expected[: limits[1]]
    assert best.tolist() == [confidence[i] for i in found.tolist()]
