"""`rerank` against the equations written out with lists, and its promises one by one."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.ranking import positions, top_candidates
from ascl_plugin.reranking import rerank
from ascl_plugin.reranking.bidirectional import new_order
from ascl_plugin.reranking.neighbors import nearest_texts
from ascl_plugin.scores import as_tensor


def ranked(scores):
    """Indices from high to low, ties to the lower index."""
    return sorted(range(len(scores)), key=lambda i: -scores[i])  # sorted is stable


def handed_out(scores, old, new):
    """The scores of the items `old`, from high to low, given to the items `new` in that order."""
    result = list(scores)
    for item, score in zip(new, [scores[i] for i in old], strict=True):
        result[item] = score
    return result


def mixed(first, p, mix):
    """The items `first` in the order of the weighted mean of reverse position and initial rank."""
    place = {item: round((1 - mix) * p[item] + mix * r, 6) for r, item in enumerate(first)}
    return sorted(first, key=place.__getitem__)


def twin(sim, k, reverse_k, groups, mix=0.0):
    """Eqs 19-29 as printed; sim a list of rows, groups[t] the neighbours G(t, K') of text t."""
    images, texts = range(len(sim)), range(len(sim[0]))
    columns = [[sim[i][t] for i in images] for t in texts]
    limit = len(sim) + len(sim[0]) if reverse_k is None else reverse_k
    text_lists = [ranked(columns[t]) for t in texts]  # images, as text t ranks them
    image_lists = [ranked(sim[i]) for i in images]  # texts, as image i ranks them
    i2t = []
    for i in images:
        first = image_lists[i][:k]  # eq 19
        p = {t: min(text_lists[t].index(i), limit) for t in first}  # eqs 20-22
        i2t.append(handed_out(sim[i], first, mixed(first, p, mix)))  # eq 23
    t2i_columns = []
    for t in texts:
        first = text_lists[t][:k]  # eq 24
        p = {i: min(limit, *(image_lists[i].index(g) for g in groups[t])) for i in first}
        t2i_columns.append(handed_out(columns[t], first, mixed(first, p, mix)))
    return i2t, [[column[i] for column in t2i_columns] for i in images]


def sims(ties):
    shape = st.tuples(st.integers(1, 8), st.integers(1, 11))
    few = st.integers(-2, 2).map(float)
    many = st.floats(-10, 10, width=16)
    return hnp.arrays(np.float64, shape, elements=few if ties else many)


options = {
    "k": st.integers(1, 13),
    "reverse_k": st.none() | st.integers(1, 9),
    "text_neighbors": st.integers(1, 13),
}


@settings(deadline=None, max_examples=80)
@given(
    sim=st.booleans().flatmap(sims),
    mix=st.sampled_from([0.0, 0.0, 0.3, 0.5, 1.0]),
    embedded=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    chunk=st.sampled_from([1, 17, 2**20]),
    **options,
)
def test_equals_the_equations(sim, k, reverse_k, text_neighbors, mix, embedded, dtype, chunk):
    scores = torch.from_numpy(sim).to(dtype)
    texts = sim.shape[1]
    embeddings = torch.randn(texts, 3, generator=torch.Generator().manual_seed(k))
    embeddings = embeddings if embedded else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        result = rerank(scores, k, reverse_k, text_neighbors, embeddings, mix=mix)
        groups = nearest_texts(scores, min(text_neighbors, texts), embeddings).tolist()
    i2t, t2i = twin(scores.tolist(), k, reverse_k, groups, mix)
    assert result.i2t.tolist() == i2t
    assert result.t2i.tolist() == t2i
    assert result.i2t.dtype == result.t2i.dtype == dtype


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan"), "half"])
def test_mix_out_of_bounds(mix):
    with pytest.raises(ValueError, match="mix must be a number"):
        rerank(np.eye(2), mix=mix)


WORKED = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]])


def test_mix_worked_by_hand():
    """Matrix of `test_worked_by_hand`: image 0 has its texts at rank 0, 1, 2, position 1, 0, 1.

    Half of each is 0.5, 0.5, 1.5: a tie, so the initial order. A quarter of the rank: 0.75, 0.25,
    1.25, so text 1 comes first.
    """
    assert rerank(WORKED, mix=0.5).i2t[0].tolist() == [0.8, 0.7, 0.6]
    assert rerank(WORKED, mix=0.25).i2t[0].tolist() == [0.7, 0.8, 0.6]
    assert rerank(WORKED, mix=1).t2i.tolist() == WORKED.tolist()


def test_worked_by_hand():
    """Three images, three texts, scores without ties.

             t0  t1  t2      places of the images in the texts' lists: t0: i1 i0 i2
        i0   .8  .7  .6                                                t1: i0 i2 i1
        i1   .9  .2  .3                                                t2: i2 i0 i1
        i2   .1  .5  .95

    Image 0 lists t0 t1 t2, and is at place 1, 0, 1 for them: new order t1 t0 t2, so t1 gets .8 and
    t0 gets .7. Image 1 lists t0 t2 t1, places 0, 2, 2: unchanged. Image 2 lists t2 t1 t0, places
    0, 1, 2: unchanged.
    Text 0 lists i1 i0 i2 and is at place 0, 0, 2 of theirs: unchanged. Text 1 lists i0 i2 i1,
    places 1, 1, 2: unchanged. Text 2 lists i2 i0 i1, places 0, 2, 1: new order i2 i1 i0, so i1 gets
    .6 and i0 gets .3.
    """
    result = rerank(WORKED)
    assert result.i2t.tolist() == [[0.7, 0.8, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]]
    assert result.t2i.tolist() == [[0.8, 0.7, 0.3], [0.9, 0.2, 0.6], [0.1, 0.5, 0.95]]


def test_only_the_first_k_move():
    """Same matrix: with k=2 text 2's candidates are i2 and i0, places 0 and 2: nothing moves."""
    result = rerank(WORKED, k=2)
    assert result.t2i.tolist() == WORKED.tolist()
    assert result.i2t.tolist() == [[0.7, 0.8, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]]


def test_places_beyond_reverse_k_tie():
    """Same matrix: from place 1 on all alike, i0 and i1 keep their order in text 2's list."""
    assert rerank(WORKED, reverse_k=1).t2i.tolist() == WORKED.tolist()
    assert rerank(WORKED, reverse_k=2).t2i.tolist() != WORKED.tolist()


def test_a_neighbour_speaks_for_a_text():
    """Image 0 lists t0 t3 t1 t2, image 1 lists t2 t1 t0 t3.

    Text 1 lists i0 i1 and is at place 2 of i0's list and 1 of i1's: alone, i1 comes first. Its
    neighbour text 3 (by embedding) is at 1 and 3: together min(2, 1) and min(1, 3) are equal, and
    the initial order stays. Text 3 alone, 1 and 3, changes nothing.
    """
    sim = np.array([[0.9, 0.6, 0.5, 0.8], [0.3, 0.4, 0.7, 0.2]])
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]], dtype=np.float32)
    alone = rerank(sim)
    assert alone.t2i[:, 1].tolist() == [0.4, 0.6]
    assert alone.t2i[:, 3].tolist() == [0.8, 0.2]
    paired = rerank(sim, text_neighbors=2, text_embeddings=embeddings)
    assert paired.t2i[:, 1].tolist() == [0.6, 0.4]
    assert paired.i2t.tolist() == alone.i2t.tolist()


@settings(deadline=None, max_examples=60)
@given(sim=sims(ties=False), count=st.integers(1, 11))
def test_neighbours_are_the_nearest_profiles(sim, count):
    """Up to rounding: no text left out is nearer than one taken, the text itself is the first."""
    count = min(count, sim.shape[1])
    profiles = sim.T - sim.T.mean(axis=0)
    norms = np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), 1e-12)
    cosines = (profiles / norms) @ (profiles / norms).T
    found = nearest_texts(torch.from_numpy(sim), count).numpy()
    assert found[:, 0].tolist() == list(range(sim.shape[1]))
    for text, taken in enumerate(found):
        assert len(set(taken)) == count
        left_out = np.setdiff1d(np.arange(sim.shape[1]), taken)
        if count > 1 and len(left_out):
            assert cosines[text, taken[1:]].min() >= cosines[text, left_out].max() - 1e-6


@pytest.mark.parametrize(("scale", "chunk"), [(1e-30, 2**20), (1e30, 2**20), (1.0, 70)])
def test_neighbours_depend_on_neither_scale_nor_chunks(monkeypatch, scale, chunk):
    scores = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    wanted = nearest_texts(scores, 4)
    monkeypatch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
    assert torch.equal(nearest_texts(scores * scale, 4), wanted)


def test_positions_are_counts_of_better_entries():
    """Every entry of a matrix with ties, asked for in any order and twice."""
    scores = torch.randint(-3, 3, (9, 40), generator=torch.Generator().manual_seed(0)).float()
    rows, columns = torch.arange(9).repeat(80), torch.arange(40).repeat_interleave(18)
    column = torch.arange(40)
    for row, asked, found in zip(rows, columns, positions(scores, rows, columns), strict=True):
        better = (scores[row] > scores[row, asked]) | (
            (scores[row] == scores[row, asked]) & (column < asked)
        )
        assert found == better.sum()


def test_the_first_of_equal_scores_are_candidates():
    """Long rows of few values, where ``torch.topk`` takes any of those at the last place."""
    scores = torch.randint(0, 4, (5, 3000), generator=torch.Generator().manual_seed(0)).float()
    for k in (1, 20, 700, 2000):
        wanted = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        assert torch.equal(top_candidates(scores, k), wanted)


def test_means_that_are_equal_on_paper_tie():
    """0.7 * 9 + 0.3 * 0 = 0.7 * 6 + 0.3 * 7 = 6.3; in floating point the first is a little more."""
    position = torch.tensor([[9, 50, 50, 50, 50, 50, 50, 6]])
    assert new_order(position, None, 0.3)[0, :2].tolist() == [0, 7]


def test_a_memory_map_is_read_where_it_is(tmp_path, recwarn):
    """Read-only, as ``np.load(..., mmap_mode="r")`` gives it: no copy, no warning."""
    sim = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    np.save(tmp_path / "sim.npy", sim)
    mapped = np.load(tmp_path / "sim.npy", mmap_mode="r")
    assert as_tensor(mapped, "sim").data_ptr() == mapped.ctypes.data
    for neighbors in (1, 3):
        found, wanted = (rerank(x, 5, text_neighbors=neighbors) for x in (mapped, sim))
        np.testing.assert_array_equal(found.i2t, wanted.i2t)
        np.testing.assert_array_equal(found.t2i, wanted.t2i)
        assert type(found.i2t) is np.ndarray and found.i2t.flags.writeable
    assert not recwarn.list
