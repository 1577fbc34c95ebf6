"""Ranks and recalls against cases worked by hand and a naive full sort."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.metrics.protocols import query_results
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.reranking import rerank

# two images, three captions; captions 0 and 2 belong to image 1, caption 1 to image 0
SIM = np.array([[0.9, 0.5, 0.6], [0.3, 0.7, 0.4]])
OWNERS = [1, 0, 1]


def naive(sim, owners):
    """Sort everything, wrong before right on ties, and look the right ones up.

    Returns ranks of image queries, their mAP@R and R-precision, and ranks of text queries.
    """
    i2t, average, precision = [], [], []
    for i, row in enumerate(sim):
        order = sorted(range(len(row)), key=lambda t: (-row[t], owners[t] == i))
        right = np.array([owners[t] == i for t in order])
        i2t.append(1 + int(right.argmax()))
        hits = right[: right.sum()]
        average.append((np.cumsum(hits) / np.arange(1, len(hits) + 1) * hits).mean())
        precision.append(hits.mean())
    t2i = []
    for t, column in enumerate(sim.T):
        order = sorted(range(len(column)), key=lambda i: (-column[i], owners[t] == i))
        t2i.append(1 + order.index(owners[t]))
    return i2t, average, precision, t2i


def test_worked_by_hand():
    """Image 0: its caption 1 (.5) has .9 and .6 before it: rank 3. Image 1: the best of its
    captions 0 (.3) and 2 (.4) is .4, with .7 before it: rank 2. Caption 0: image 1 (.3) behind .9:
    2. Caption 1: image 0 (.5) behind .7: 2. Caption 2: image 1 (.4) behind .6: 2.
    """
    found = query_results(SIM, OWNERS)
    assert (found.i2t_rank.tolist(), found.t2i_rank.tolist()) == ([3, 2], [2, 2, 2])
    assert retrieval_metrics(SIM, OWNERS) == {
        "i2t_r1": 0.0, "i2t_r5": 100.0, "i2t_r10": 100.0,
        "t2i_r1": 0.0, "t2i_r5": 100.0, "t2i_r10": 100.0,
        "i2t_medr": 2.5, "i2t_meanr": 2.5, "t2i_medr": 2.0, "t2i_meanr": 2.0,
        "medr": 2.25, "meanr": 2.25, "rsum": 400.0,
    }  # fmt: skip


def test_lists_of_captions_and_pairs_without_a_map():
    """The captions of each image say the same; without a map caption i belongs to image i."""
    assert retrieval_metrics(SIM, [[1], (0, 2)]) == retrieval_metrics(SIM, OWNERS)
    square = np.array([[0.9, 0.5], [0.3, 0.7]])
    assert retrieval_metrics(square) == retrieval_metrics(square, [0, 1])
    # [[1], [0]] is image 0's caption 1 and image 1's caption 0
    assert retrieval_metrics(square, [[1], [0]]) == retrieval_metrics(square, [1, 0])


@pytest.mark.parametrize(
    ("given_owners", "message"),
    [
        (None, "sim has 2 images and 3 texts: without caption_to_image, text i belongs to image i"),
        ([[0], [1], [2]], "has 3 lists, sim has 2 images: it needs one list of captions for each"),
        ([[0, 1], [1, 2]], "caption 1 belongs to image 0 and to image 1; each needs one image"),
        ([[0], [2]], "caption 1 belongs to no image; leave out its column"),
        ([[0, 3], [1, 2]], "image 0 has caption 3, sim has texts 0 to 2"),
        ([[0, 1, 2], []], "image 1 has no caption"),
        (
            [0, 1],
            r"sim has 3 texts: .*; if sim is \(texts, images\), pass its transpose",
        ),
    ],
)
def test_ground_truth_that_does_not_fit(given_owners, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(SIM, given_owners)


@settings(deadline=None, max_examples=120)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 6), st.integers(0, 8)),
    ties=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    chunk=st.sampled_from([1, 13, 2**20]),
)
def test_equals_a_full_sort(data, shape, ties, dtype, chunk):
    images, extra = shape
    owners = data.draw(
        st.lists(st.integers(0, images - 1), min_size=extra, max_size=extra)
        .map(lambda more: [*range(images), *more])
        .flatmap(st.permutations)
    )
    few = st.integers(-1, 1).map(float)
    many = st.floats(-9, 9, width=16) | st.just(-np.inf)  # as a mask writes it
    sim = data.draw(hnp.arrays(dtype, (images, len(owners)), elements=few if ties else many))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        found = query_results(sim, np.array(owners, dtype=np.int32))
    i2t, average, precision, t2i = naive(sim, owners)
    assert (found.i2t_rank.tolist(), found.t2i_rank.tolist()) == (i2t, t2i)
    assert found.map_at_r == pytest.approx(average)
    assert found.r_precision == pytest.approx(precision)


def test_bfloat16_of_torch_is_ranked_as_it_is():
    sim = torch.randn(7, 14, generator=torch.Generator().manual_seed(0)).bfloat16()
    owners = torch.arange(14) % 7
    assert retrieval_metrics(sim, owners) == retrieval_metrics(sim.float().numpy(), owners.numpy())


def test_the_other_direction_from_a_matrix_of_its_own():
    """After re-ranking each direction reads its own matrix, and only that."""
    perfect = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    mixed = retrieval_metrics(SIM, OWNERS, t2i=perfect)
    assert (mixed["i2t_meanr"], mixed["t2i_meanr"]) == (2.5, 1.0)
    assert mixed["rsum"] == 500.0
    result = rerank(SIM)
    assert retrieval_metrics(result.i2t, OWNERS, t2i=result.t2i)["rsum"] >= 400.0


def with_nan(row, column):
    sim = np.ones((3, 3))
    sim[row, column] = np.nan
    return sim


@pytest.mark.parametrize(
    ("sim", "owners", "error", "message"),
    [
        (with_nan(2, 1), [0, 1, 2], ValueError, "sim holds nan at row 2, column 1"),
        (np.eye(3), [0, 1], ValueError, r"shape \(2,\), sim has 3 texts"),
        (np.eye(3), np.array([[0, 1, 2]]), ValueError, r"shape \(1, 3\), sim has 3"),
        (np.eye(3), [0, 1, 3], ValueError, "caption 2 points at image 3, sim has images 0 to 2"),
        (np.eye(3), [0, -1, 2], ValueError, "caption 1 points at image -1"),
        (np.eye(3), [0, 2, 2], ValueError, "image 1 has no caption"),
        (np.eye(3), [0.0, 1.0, 2.0], TypeError, "must hold integers, got float64"),
        (np.eye(3), [True, False, True], TypeError, "must hold integers, got bool"),
        (np.ones(3), [0], ValueError, "got shape"),
    ],
)
def test_errors_say_what_and_where(sim, owners, error, message):
    with pytest.raises(error, match=message):
        retrieval_metrics(sim, owners)


def test_both_directions_need_one_shape():
    with pytest.raises(ValueError, match=r"t2i has shape \(2, 4\), sim has \(2, 3\)"):
        retrieval_metrics(SIM, OWNERS, t2i=np.ones((2, 4)))
    with pytest.raises(ValueError, match="t2i holds nan at row 0, column 0"):
        retrieval_metrics(SIM, OWNERS, t2i=SIM * np.nan)
