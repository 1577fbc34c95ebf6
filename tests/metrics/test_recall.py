"""Ranks and recalls against cases worked by hand and a naive full sort."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.metrics.recall import ranks, retrieval_metrics
from ascl_plugin.reranking import rerank

# two images, three captions; captions 0 and 2 belong to image 1, caption 1 to image 0
SIM = np.array([[0.9, 0.5, 0.6], [0.3, 0.7, 0.4]])
OWNERS = [1, 0, 1]


def naive_ranks(sim, owners):
    """Sort everything, wrong before right on ties, and look the right one up."""
    i2t = []
    for i, row in enumerate(sim):
        order = sorted(range(len(row)), key=lambda t: (-row[t], owners[t] == i))
        own = [t for t in order if owners[t] == i]
        i2t.append(1 + len([t for t in order[: order.index(own[0])] if owners[t] != i]))
    t2i = []
    for t, column in enumerate(sim.T):
        order = sorted(range(len(column)), key=lambda i: (-column[i], owners[t] == i))
        t2i.append(1 + order.index(owners[t]))
    return i2t, t2i


def test_worked_by_hand():
    """Image 0: its caption 1 (.5) has .9 and .6 before it: rank 3. Image 1: the best of its
    captions 0 (.3) and 2 (.4) is .4, with .7 before it: rank 2. Caption 0: image 1 (.3) behind .9:
    2. Caption 1: image 0 (.5) behind .7: 2. Caption 2: image 1 (.4) behind .6: 2.
    """
    i2t, t2i = ranks(SIM, OWNERS)
    assert (i2t.tolist(), t2i.tolist()) == ([3, 2], [2, 2, 2])
    assert retrieval_metrics(SIM, OWNERS) == {
        "i2t_r1": 0.0, "i2t_r5": 100.0, "i2t_r10": 100.0,
        "t2i_r1": 0.0, "t2i_r5": 100.0, "t2i_r10": 100.0,
        "i2t_medr": 2.5, "i2t_meanr": 2.5, "t2i_medr": 2.0, "t2i_meanr": 2.0,
        "medr": 2.25, "meanr": 2.25, "rsum": 400.0,
    }  # fmt: skip


def test_uneven_counts():
    """Image 0 has four captions, image 1 one; an image's other captions are not wrong.

    Image 0 scores .9 .8 .7 .6 | .85: its best is .9, rank 1 though .85 is above its others.
    Image 1 scores .1 .2 .3 .4 | .35: its only caption is behind .4: rank 2.
    """
    sim = np.array([[0.9, 0.8, 0.7, 0.6, 0.85], [0.1, 0.2, 0.3, 0.4, 0.35]])
    i2t, t2i = ranks(sim, [0, 0, 0, 0, 1])
    assert (i2t.tolist(), t2i.tolist()) == ([1, 2], [1, 1, 1, 1, 2])
    metrics = retrieval_metrics(sim, [0, 0, 0, 0, 1])
    assert (metrics["i2t_r1"], metrics["t2i_r1"]) == (50.0, 80.0)


def test_ties_count_against_the_model():
    """All the same: image 0 has 2 wrong captions, image 1 has 1; each caption 1 wrong image."""
    i2t, t2i = ranks(np.zeros((2, 3), dtype=np.float32), OWNERS)
    assert (i2t.tolist(), t2i.tolist()) == ([3, 2], [2, 2, 2])


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
    few, many = st.integers(-1, 1).map(float), st.floats(-9, 9, width=16) | st.just(-np.inf)
    sim = data.draw(hnp.arrays(dtype, (images, len(owners)), elements=few if ties else many))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        i2t, t2i = ranks(sim, np.array(owners, dtype=np.int32))
    assert (i2t.tolist(), t2i.tolist()) == naive_ranks(sim, owners)


def test_torch_gives_torch_and_the_same_numbers():
    sim = torch.randn(7, 14, generator=torch.Generator().manual_seed(0)).bfloat16()
    owners = torch.arange(14) % 7
    i2t, t2i = ranks(sim, owners)
    assert isinstance(i2t, torch.Tensor) and i2t.dtype == t2i.dtype == torch.int64
    assert (i2t.tolist(), t2i.tolist()) == naive_ranks(sim.float().numpy(), owners.tolist())
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
        (np.eye(3), [[0, 1, 2]], ValueError, r"shape \(1, 3\), sim has 3 texts"),
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


def test_infinite_scores_are_ranked():
    """-inf is how a mask says never: a caption so marked is behind all others."""
    sim = np.array([[1.0, -np.inf], [0.5, -np.inf]])
    assert ranks(sim, [0, 1])[0].tolist() == [1, 2]
