"""`rerank_candidates` against `rerank` on the same lists, and its promises one by one."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.reranking import ItemNames, RerankedLists, Reranker, rerank, rerank_candidates


def top_lists(scores, k):
    """(Q, k) ids and scores, best first, ties to the lower id."""
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def lists_of(sim, k=None, reverse=None):
    return (*top_lists(sim, k), *top_lists(sim.T, reverse))


def filled_in(sim, found):
    """Two matrices of sim's shape with the scores of the lists where the lists say."""
    i2t, t2i = sim.copy(), sim.T.copy()
    np.put_along_axis(i2t, found.i2t_ids, found.i2t_scores, axis=1)
    np.put_along_axis(t2i, found.t2i_ids, found.t2i_scores, axis=1)
    return i2t, t2i.T


@st.composite
def matrices(draw):
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 11)))
    ties, many = st.integers(-2, 2).map(float), st.floats(-10, 10, width=16)
    return draw(hnp.arrays(np.float32, shape, elements=draw(st.sampled_from([ties, many]))))


options = {
    "k": st.integers(1, 13),
    "reverse_k": st.none() | st.integers(1, 9),
    "mix": st.sampled_from([0.0, 0.3, 1.0]),
}


@settings(deadline=None, max_examples=60)
@given(
    sim=matrices(),
    lengths=st.tuples(st.integers(1, 12), st.integers(1, 9)),
    neighbors=st.integers(1, 4),
    seed=st.integers(0, 9),
    chunk=st.sampled_from([1, 17, 2**20]),
    **options,
)
def test_short_lists_are_the_matrix_with_a_limit(
    sim, lengths, neighbors, seed, chunk, k, reverse_k, mix
):
    length, reverse = np.minimum(lengths, sim.shape[::-1]).tolist()
    embeddings = np.random.default_rng(seed).normal(size=(sim.shape[1], 3))
    shared = {"text_neighbors": neighbors, "text_embeddings": embeddings, "mix": mix}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        found = rerank_candidates(*lists_of(sim, length, reverse), k, reverse_k, **shared)
    limit = max(sim.shape) if reverse_k is None else reverse_k
    i2t, t2i = filled_in(sim, found)
    wanted = rerank(sim, min(k, length), min(limit, reverse), **shared)
    np.testing.assert_array_equal(i2t, wanted.i2t)
    wanted = rerank(sim, min(k, reverse), min(limit, length), **shared)
    np.testing.assert_array_equal(t2i, wanted.t2i)


FINE = {
    "i2t_ids": np.array([[0, 1], [0, 2]]),
    "i2t_scores": np.array([[0.9, 0.8], [0.95, 0.7]]),
    "t2i_ids": np.array([[1, 0], [0, 1], [0, 1]]),
    "t2i_scores": np.array([[0.95, 0.9], [0.8, 0.1], [0.75, 0.7]]),
}


def test_worked_by_hand():
    """Two images, three texts, lists of two.

    Image 0 lists t0 t1, and is at place 1 of text 0's list and 0 of text 1's: they change places.
    Image 1 lists t0 t2, at places 0 and 0: unchanged.
    Text 0 lists i1 i0, at place 0 of both lists: unchanged. Text 1 lists i0 i1, at place 1 of
    image 0's and not in image 1's: unchanged. Text 2 lists i0 i1, not in image 0's list and at
    place 1 of image 1's: they change places.
    """
    found = rerank_candidates(**FINE)
    assert found.i2t_ids.tolist() == [[1, 0], [0, 2]]
    assert found.i2t_scores.tolist() == [[0.9, 0.8], [0.95, 0.7]]
    assert found.t2i_ids.tolist() == [[1, 0], [0, 1], [1, 0]]


def test_given_neighbours_speak():
    """The lists above; text 0 speaks for text 2, and is at place 0 of both: nothing moves.

    With nobody, -1, in text 0's stead, text 2 speaks for itself.
    """
    found = rerank_candidates(**FINE, neighbors=np.array([[-1, -1], [-1, -1], [0, -1]]))
    assert found.t2i_ids.tolist() == [[1, 0], [0, 1], [0, 1]]
    found = rerank_candidates(**FINE, neighbors=np.full((3, 1), -1))
    assert found.t2i_ids.tolist() == [[1, 0], [0, 1], [1, 0]]


@settings(deadline=None, max_examples=60)
@given(
    sim=matrices(),
    lengths=st.tuples(st.integers(1, 12), st.integers(1, 9)),
    neighbors=st.integers(1, 4),
    missing=st.integers(0, 5),
    seed=st.integers(0, 99),
    kind=st.sampled_from([torch.int32, torch.int64, np.int32, np.int64, np.uint64, ">i4"]),
)
def test_ids_only_change_places_and_the_input_not_at_all(
    sim, lengths, neighbors, missing, seed, kind
):
    """Also where lists end early, with NaN as the score of nobody."""
    i2t_ids, i2t_scores, t2i_ids, t2i_scores = lists_of(sim, *lengths)
    order = np.random.default_rng(seed)
    for ids, scores in ((i2t_ids, i2t_scores), (t2i_ids, t2i_scores)):
        for row in order.integers(len(ids), size=missing):
            end = order.integers(ids.shape[1] + 1)
            ids[row, end:], scores[row, end:] = -1, np.nan
    if isinstance(kind, torch.dtype):
        ids = [torch.from_numpy(x).to(kind) for x in (i2t_ids, t2i_ids)]
        scores = [torch.from_numpy(x).to(torch.bfloat16) for x in (i2t_scores, t2i_scores)]
    else:
        ids = [x.astype(kind) for x in (i2t_ids, t2i_ids)]
        scores = [i2t_scores.astype(np.float16), t2i_scores.astype(">f8")]
    lists = (ids[0], scores[0], ids[1], scores[1])
    before = [plain(x) for x in lists]
    near = order.integers(-1, len(t2i_ids), (len(t2i_ids), neighbors))
    found = rerank_candidates(*lists, neighbors=near)
    assert isinstance(found, RerankedLists)
    results = (found.i2t_ids, found.i2t_scores, found.t2i_ids, found.t2i_scores)
    for result, values, copied in zip(results, lists, before, strict=True):
        assert type(result) is type(values) and result.dtype == values.dtype
        if values is lists[0] or values is lists[2]:  # nobody stays behind everybody
            np.testing.assert_array_equal(plain(result) == -1, copied == -1)
            np.testing.assert_array_equal(np.sort(plain(result), 1), np.sort(copied, 1))
        else:
            np.testing.assert_array_equal(plain(result), copied)
        result[:] = 0
        np.testing.assert_array_equal(plain(values), copied)


def plain(values):
    """A copy, integers in int64 and floats in float64."""
    array = values.double().numpy() if isinstance(values, torch.Tensor) else values
    return array.astype(np.int64 if array.dtype.kind in "iu" else np.float64)


def test_nothing_as_large_as_a_matrix_is_made():
    """100,000 by 100,000, 40 GB in float32, in the blink of an eye."""
    count = 100_000
    ids = (np.arange(count)[:, None] + [3, 0, 1]) % count
    scores = np.tile(np.float32([0.9, 0.8, 0.7]), (count, 1))
    found = rerank_candidates(ids, scores, ids, scores, neighbors=ids[:, :1])
    # item 0 lists 3, 0, 1 and of these only 0 lists it: 0 comes first
    assert found.i2t_ids[0].tolist() == [0, 3, 1]


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_torch_equals_numpy(device):
    lists = lists_of(np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32), 10, 8)
    near = {"text_neighbors": 3, "text_embeddings": np.random.default_rng(1).normal(size=(50, 4))}
    wanted = rerank_candidates(*lists, **near)
    given_lists = [torch.from_numpy(x).to(device) for x in lists]
    found = rerank_candidates(*given_lists, **near)
    assert not np.array_equal(wanted.t2i_ids, lists[2])
    assert found.i2t_ids.device.type == device
    assert torch.equal(found.i2t_ids.cpu(), torch.from_numpy(wanted.i2t_ids))
    assert torch.equal(found.t2i_ids.cpu(), torch.from_numpy(wanted.t2i_ids))


def changed(name, value, row=1, column=1):
    """`FINE` with one entry changed."""
    lists = {key: values.copy() for key, values in FINE.items()}
    lists[name][row, column] = value
    return lists


@pytest.mark.parametrize(
    ("lists", "options", "error", "message"),
    [
        (changed("i2t_ids", 3), {}, ValueError, "i2t_ids holds 3 at row 1, column 1 .* 0 to 2, or"),
        (changed("t2i_ids", 2), {}, ValueError, "t2i_ids holds 2 at row 1, column 1 .* 0 to 1, or"),
        (changed("t2i_ids", -2), {}, ValueError, "t2i_ids holds -2 at row 1, column 1"),
        (changed("i2t_ids", 0), {}, ValueError, "i2t_ids holds 0 twice at row 1"),
        (changed("t2i_ids", 0, 2), {}, ValueError, "t2i_ids holds 0 twice at row 2"),
        (changed("t2i_ids", -1, 2, 0), {}, ValueError, "holds 1 at row 2, column 1 .* behind -1"),
        (changed("i2t_scores", np.nan), {}, ValueError, "i2t_scores holds nan at row 1, column 1"),
        (changed("t2i_scores", -np.inf), {}, ValueError, "t2i_scores holds -inf at row 1"),
        (changed("t2i_scores", 0.9), {}, ValueError, r"holds 0.9 at row 1.* \(negate distances\)"),
        (FINE | {"i2t_scores": np.ones((2, 3))}, {}, ValueError, r"\(2, 2\) and i2t_scores \(2, 3"),
        (FINE | {"i2t_ids": np.ones((2, 2))}, {}, TypeError, "i2t_ids must hold integers, got fl"),
        (FINE | {"i2t_ids": np.ones((2, 2), bool)}, {}, TypeError, "integers, got bool"),
        (FINE | {"t2i_ids": {0}}, {}, TypeError, "t2i_ids must be a numpy array.* got set"),
        (FINE | {"t2i_ids": np.ones(3, int)}, {}, ValueError, r"must be \(texts, K\).* \(3,\)"),
        (FINE | {"t2i_ids": np.ones((3, 0), int)}, {}, ValueError, r"t2i_ids is empty.* \(3, 0\)"),
        (FINE | {"t2i_scores": np.ones((3, 2), int)}, {}, TypeError, "t2i_scores must hold floats"),
        (FINE, {"k": 0}, ValueError, "k must be an integer of at least 1, got 0"),
        (FINE, {"reverse_k": 0}, ValueError, "reverse_k must be .* at least 1, got 0"),
        (FINE, {"text_neighbors": 0}, ValueError, "text_neighbors must be .* got 0"),
        (FINE, {"text_neighbors": 2}, ValueError, "text_neighbors=2: .* pass text_embeddings"),
        (FINE, {"mix": 2}, ValueError, "mix must be .* got 2"),
        (FINE, {"text_embeddings": np.ones((2, 4))}, ValueError, r"\(2, 4\), t2i_ids has 3 texts"),
        (FINE, {"text_embeddings": np.full((3, 1), np.inf)}, ValueError, "text_embeddings holds i"),
        (FINE, {"neighbors": np.zeros((2, 1), int)}, ValueError, r"neighbors .*\(2, 1\), t2i_ids"),
        (FINE, {"neighbors": np.full((3, 1), 3)}, ValueError, "neighbors holds 3 at row 0, colu"),
        (FINE, {"neighbors": np.zeros((3, 1), int), "text_neighbors": 2}, ValueError, "leave them"),
    ],
)  # fmt: skip
def test_errors_say_what_and_where(lists, options, error, message):
    with pytest.raises(error, match=message):
        rerank_candidates(**lists, **options)


def test_the_place_of_an_error_does_not_depend_on_chunks(monkeypatch):
    monkeypatch.setattr("ascl_plugin.scores.CHUNK_SCORES", 1)
    with pytest.raises(ValueError, match="i2t_ids holds 0 twice at row 1"):
        rerank_candidates(**changed("i2t_ids", 0))
    with pytest.raises(ValueError, match="t2i_ids holds 2 at row 2, column 1"):
        rerank_candidates(**changed("t2i_ids", 2, 2))


FROM_LISTS = {
    "inverted_softmax": {"temperature": 0.2},
    "dual_softmax": {"temperature": 0.2},
    "csls": {"neighbors": 3},
    "nnn": {"alpha": 0.9, "neighbors": 3},
    "qb_norm": {"temperature": 0.2, "activation_k": 2},
    "local_scaling": {"neighbors": 3, "self_score": 5.0},
}


@pytest.mark.parametrize("method", FROM_LISTS)
def test_whole_lists_are_the_matrix(method):
    """By every method that lists suffice for; `csls` and `nnn` also from lists of 3."""
    sim = np.random.default_rng(3).normal(size=(7, 9)) + np.arange(9) * 0.1
    wanted = rerank(sim, method=method, **FROM_LISTS[method])
    found = rerank_candidates(*lists_of(sim), method=method, **FROM_LISTS[method])
    i2t, t2i = filled_in(sim, found)
    np.testing.assert_array_equal(i2t, wanted.i2t)
    np.testing.assert_array_equal(t2i, wanted.t2i)
    assert not np.array_equal(i2t, sim)
    if method in ("csls", "nnn"):
        short = rerank_candidates(*lists_of(sim, 9, 3), method=method, **FROM_LISTS[method])
        np.testing.assert_array_equal(filled_in(sim, short)[0], wanted.i2t)


@pytest.mark.parametrize("method", ["nnn", "qb_norm", "local_scaling"])
def test_one_direction_with_a_fitted_reranker(method):
    """A list of the whole gallery has the order of `transform`, with no list of the other side."""
    draw = np.random.default_rng(4)
    bank, sim = draw.normal(size=(8, 6)), draw.normal(size=(3, 6))
    fitted = Reranker(method).fit(bank)
    wanted = np.argsort(-fitted.transform(sim), axis=1, kind="stable")
    ids, scores = top_lists(sim, None)
    given_biases = [fitted, fitted.gallery_bias] if method == "nnn" else [fitted]
    for bias in given_biases:
        found = rerank_candidates(ids, scores, i2t_bias=bias)
        np.testing.assert_array_equal(found.i2t_ids, wanted)
        np.testing.assert_array_equal(found.i2t_scores, scores)
        assert found.t2i_ids.shape == (0, 0)
        found = rerank_candidates(t2i_ids=ids, t2i_scores=scores, t2i_bias=bias)
        np.testing.assert_array_equal(found.t2i_ids, wanted)
    ids[1, 4:], scores[1, 4:] = -1, np.nan  # 4 results; the row alone is the row among others
    found = rerank_candidates(ids, scores, i2t_bias=fitted)
    assert found.i2t_ids[1, 4:].tolist() == [-1, -1]
    alone = rerank_candidates(ids[1:2, :4], scores[1:2, :4], i2t_bias=fitted)
    np.testing.assert_array_equal(found.i2t_ids[1, :4], alone.i2t_ids[0])


def test_a_bias_by_hand():
    """0.9 - 0.5 falls behind 0.8; the empty slot stays."""
    ids, scores = np.array([[0, 1, -1]]), np.array([[0.9, 0.8, np.nan]])
    found = rerank_candidates(ids, scores, i2t_bias=np.array([-0.5, 0.0]))
    assert found.i2t_ids.tolist() == [[1, 0, -1]]


ONE = {"i2t_ids": FINE["i2t_ids"], "i2t_scores": FINE["i2t_scores"]}


@pytest.mark.parametrize(
    ("given_lists", "options", "error", "message"),
    [
        ({}, {}, ValueError, "pass i2t or t2i lists"),
        ({"i2t_ids": FINE["i2t_ids"]}, {}, ValueError, "i2t_ids and i2t_scores go together"),
        (ONE, {}, ValueError, "needs the lists of both directions; for one alone pass the bias"),
        (ONE, {"method": "nnn"}, ValueError, "i2t needs i2t_bias, or a method and the lists of"),
        (ONE, {"t2i_bias": np.ones(3)}, ValueError, "t2i_bias without t2i_ids"),
        (ONE, {"i2t_bias": np.ones(2)}, ValueError, "i2t_ids holds 2 at row 1, column 1"),
        (ONE, {"i2t_bias": np.ones(3), "k": 3}, TypeError, "k without a method to have it"),
        (ONE, {"i2t_bias": np.ones(3, int)}, TypeError, "i2t_bias must hold floats, got int64"),
        (ONE, {"i2t_bias": np.full(3, np.nan)}, ValueError, "i2t_bias must be finite"),
        (ONE, {"i2t_bias": Reranker("dn").fit(np.ones((2, 4)))}, None, ""),
        (FINE, {"i2t_bias": np.ones(4), "method": "nnn"}, ValueError, "one number .* 3 gallery it"),
        (FINE, {"method": "dn"}, ValueError, "'dn' needs more than lists; fit a Reranker on a ba"),
        (FINE, {"method": "nnn", "k": 3}, TypeError, "'nnn' has no option 'k'"),
        (FINE, {"temperature": 3}, TypeError, "has no option 'temperature'; it has k, rev"),
        (
            ONE,
            {"i2t_bias": Reranker("mutual_proximity").fit(np.eye(3))},
            ValueError,
            "'mutual_proximity' compares a query's score with its scores of the whole gallery",
        ),
    ],
)
def test_errors_of_methods_and_biases(given_lists, options, error, message):
    if error is None:
        rerank_candidates(**given_lists, **options)
        return
    with pytest.raises(error, match=message):
        rerank_candidates(**given_lists, **options)


def test_names_in_and_out():
    """As a vector database returns them: strings, lists of any length, in any order."""
    texts = ItemNames(["t0", "t1", "t2"])
    ids, scores = texts.pack([[("t1", 0.8), ("t0", 0.9)], {"t2": 0.7}, []])
    assert ids.tolist() == [[0, 1], [2, -1], [-1, -1]]
    found = rerank_candidates(ids, scores, i2t_bias=np.array([-0.5, 0.0, 0.0]))
    named = texts.unpack(found.i2t_ids, found.i2t_scores)
    assert named == [[("t1", 0.9), ("t0", 0.8)], [("t2", 0.7)], []]
    with pytest.raises(ValueError, match="query 1 found 't7', which is none of the 3 names"):
        texts.pack([[("t1", 0.8)], [("t7", 0.8)]])
    with pytest.raises(ValueError, match="no query has a result"):
        texts.pack([[], []])
    for names, message in (([], "no names"), (["a", "b", "a"], "'a' occurs twice")):
        with pytest.raises(ValueError, match=message):
            ItemNames(names)
