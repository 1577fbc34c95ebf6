"""`rerank` at its border: types, dtypes, strides, devices, and what it says to bad input."""

from __future__ import annotations

from typing import get_type_hints

import numpy as np
import pytest
import torch

from ascl_plugin import available, build, register, registry, retrieval_metrics
from ascl_plugin.reranking import rerank, tune_rerank
from ascl_plugin.reranking.options import RerankOptions, options_of


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_numpy_stays_numpy(dtype, recwarn):
    sim = np.random.default_rng(0).normal(size=(6, 9)).astype(dtype)
    wanted = rerank(torch.from_numpy(sim.astype(dtype.replace(">", "<"))), k=5)
    frozen = sim.copy()
    frozen.flags.writeable = False
    flipped = sim[::-1, ::-1].copy()[::-1, ::-1]
    for given_sim in (
        sim,
        np.asfortranarray(sim),
        np.repeat(sim, 2, axis=1)[:, ::2],
        frozen,
        flipped,
    ):
        result = rerank(given_sim, k=5)
        for matrix, expected in zip(result, wanted, strict=True):
            assert type(matrix) is np.ndarray
            assert matrix.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(matrix, expected.numpy())
    assert not recwarn.list


@pytest.mark.parametrize("method", available("rerank"))
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_input_stays_as_it_is_and_shares_nothing(method, order):
    drawn = np.random.default_rng(0).uniform(-1, 1, size=(30, 20))
    sim = np.array(drawn, order=order)
    result = rerank(sim, method=method)
    np.testing.assert_array_equal(sim, drawn)
    matrices = [sim, result.i2t, result.t2i]
    assert not any(np.shares_memory(a, b) for a in matrices for b in matrices if a is not b)


@pytest.mark.parametrize("method", ["bidirectional", "inverted_softmax", "sinkhorn"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_threads_and_strides_change_nothing(cores, method, dtype):
    """700 rows are 3 chunks of 2**18 scores, and rows of a transposed matrix many strips."""
    sim = torch.rand(700, 1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    cores(1)
    alone = rerank(sim, method=method)
    cores(3)
    for given in (sim, sim.T.contiguous().T):
        shared = rerank(given, method=method)
        assert torch.equal(shared.i2t, alone.i2t) and torch.equal(shared.t2i, alone.t2i)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minus_zero_is_zero(dtype):
    """Text 0 scores -0.0 and 0.0: a tie, so image 0 is first, and image 0 keeps text 0 first.

    Were -0.0 the smaller, image 0 would be at place 1 for text 0, 0 for text 1, and change them.
    """
    sim = np.array([[-0.0, -1.0], [0.0, -2.0]], dtype=dtype)
    np.testing.assert_array_equal(rerank(sim).i2t, sim)


def test_one_row_and_one_column():
    """A single image is first for every text, a single text first for every image: no news."""
    row = np.array([[0.1, 0.3, 0.2]])
    for sim in (row, row.T):
        result = rerank(sim, text_neighbors=3)
        np.testing.assert_array_equal(result.i2t, sim)
        np.testing.assert_array_equal(result.t2i, sim)


def test_every_option_is_a_keyword_that_a_type_checker_knows():
    """`RerankOptions` names the options of all methods, and no labels."""
    names = {
        option
        for method in registry.BUILT_IN["rerank"]
        for option in options_of(registry.resolve("rerank", method))
    }
    assert set(get_type_hints(RerankOptions)) == {"method"} | names
    with pytest.raises(TypeError, match="caption_to_image"):
        rerank(np.eye(2), caption_to_image=[0, 1])


def lift(scores, *, alpha=0.5, bank_i2t=None, bank_t2i=None):
    """A method of a user: both directions by the score, minus alpha of the other way round."""
    return scores - alpha * scores.flip(1), scores - alpha * scores.flip(0)


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    register("rerank", "mine")(lift)


def test_a_registered_method_is_one_like_ours(mine):
    sim = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    assert "mine" in available("rerank") and "csls" in available("rerank")
    result = rerank(sim, method="mine", alpha=0.25)
    np.testing.assert_allclose(result.i2t, sim - 0.25 * sim[:, ::-1])
    assert result.t2i.dtype == np.float32
    assert (result.method, result.transductive, result.oracle) == ("mine", True, False)
    assert not rerank(sim, method="mine", bank_i2t=sim, bank_t2i=sim).transductive
    assert np.array_equal(rerank(sim, method=lift).t2i, rerank(sim, method="mine").t2i)
    with pytest.raises(TypeError, match="'mine' has no option 'k'; it has alpha, bank_i2t, bank"):
        rerank(sim, method="mine", k=3)
    tuned = tune_rerank(sim, [0, 1, 2, 3, 0], {"alpha": [0.1, 0.2]}, method="mine")
    assert [t.options for t in tuned.trials[1:]] == [
        {"method": "mine", "alpha": alpha} for alpha in (0.1, 0.2)
    ]


def test_what_a_method_returns_is_looked_at(mine):
    register("rerank", "mine")(lambda scores: (scores, scores.T))
    with pytest.raises(ValueError, match=r"'mine' returned shapes \(2, 3\) and \(3, 2\)"):
        rerank(np.ones((2, 3)), method="mine")


def test_a_name_is_never_imported_as_a_path():
    """Options come from files of saved runs, too."""
    with pytest.raises(ValueError, match="no method 'os:getcwd'; there are bidirectional"):
        rerank(np.eye(2), method="os:getcwd")


def test_built_by_name():
    sim = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]])
    assert build("rerank", "bidirectional", k=2)(sim).t2i.tolist() == sim.tolist()
    built, wanted = (
        build("rerank", "csls", neighbors=2)(sim),
        rerank(sim, method="csls", neighbors=2),
    )
    assert built.i2t.tolist() == wanted.i2t.tolist() and built.method == "csls"
    path = build("rerank", "ascl_plugin.reranking.hubness:nnn", alpha=0.5)
    assert path(sim).i2t.tolist() == rerank(sim, method="nnn", alpha=0.5).i2t.tolist()


class Sparse:
    """A matrix of scipy.sparse, as far as `rerank` looks at it."""

    def toarray(self):
        raise AssertionError("the caller decides that")


class Frame:
    """A DataFrame, as far as numpy looks at it."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_lists_and_frames_come_back_as_arrays():
    sim = np.array([[0.9, 0.8], [0.95, 0.1]])
    wanted = rerank(sim)
    for given_sim in (sim.tolist(), tuple(map(tuple, sim)), Frame(sim)):
        result = rerank(given_sim)
        for matrix, expected in zip(result, wanted, strict=True):
            assert type(matrix) is np.ndarray
            np.testing.assert_array_equal(matrix, expected)
    assert retrieval_metrics(sim.tolist(), [0, 1], t2i=Frame(sim)) == retrieval_metrics(sim)
    found = rerank(sim, method="nnn", bank_i2t=Frame(sim), bank_t2i=sim.tolist())
    assert not found.transductive


def holding(value, row, column, shape=(4, 5)):
    sim = np.ones(shape)
    sim[row:, column:] = value
    return sim


@pytest.mark.parametrize(
    ("sim", "options", "error", "message"),
    [
        (holding(np.nan, 2, 3), {}, ValueError, "sim holds nan at row 2, column 3"),
        (holding(-np.inf, 1, 0), {}, ValueError, "sim holds -inf at row 1, column 0"),
        (np.ones((0, 3)), {}, ValueError, r"sim is empty: \(images, texts\) is \(0, 3\)"),
        (np.ones((3, 0)), {}, ValueError, "sim is empty"),
        (np.ones(3), {}, ValueError, r"sim must be \(images, texts\), got shape \(3,\)"),
        (np.ones((2, 2), dtype=int), {}, TypeError, "floats of 16, 32 or 64 bits, got int64"),
        (np.ones((2, 2), dtype=complex), {}, TypeError, "got complex128"),
        (torch.ones(2, 2, dtype=torch.long), {}, TypeError, "got torch.int64"),
        ("sim", {}, TypeError, "sim must be a numpy array, .* got str"),
        ([[1.0], [1.0, 2.0]], {}, TypeError, "sim: numpy makes no array of this list"),
        ([["a"]], {}, TypeError, "sim must hold floats of 16, 32 or 64 bits, got <U1"),
        (torch.eye(2).to_sparse(), {}, TypeError, r"sim is sparse .*pass sim.to_dense\(\)"),
        (Sparse(), {}, TypeError, r"sim is sparse \(Sparse\): pass sim.toarray\(\)"),
        (np.eye(2), {"k": 0}, ValueError, "k must be an integer of at least 1, got 0"),
        (np.eye(2), {"k": 1.5}, ValueError, "k must be an integer of at least 1, got 1.5"),
        (np.eye(2), {"reverse_k": 0}, ValueError, "reverse_k must be .* at least 1, got 0"),
        (np.eye(2), {"text_neighbors": 0}, ValueError, "text_neighbors must be .* got 0"),
        (np.eye(2), {"method": "magic"}, ValueError, "no method 'magic'; .* bidirectional, csls"),
        (np.eye(2), {"kk": 3}, TypeError, "kk"),
        (np.eye(2), {"text_embeddings": np.ones((3, 4))}, ValueError, r"\(3, 4\), sim has 2 texts"),
        (np.eye(2), {"text_embeddings": np.ones(2)}, ValueError, r"must be \(texts, width\)"),
        (
            np.eye(4),
            {"text_embeddings": holding(np.nan, 1, 2, (4, 4))},
            ValueError,
            "text_embeddings holds nan at row 1, column 2",
        ),
    ],
)  # fmt: skip
def test_errors_say_what_and_where(sim, options, error, message):
    with pytest.raises(error, match=message):
        rerank(sim, **options)


def test_the_place_of_a_nan_does_not_depend_on_chunks(monkeypatch):
    monkeypatch.setattr("ascl_plugin.scores.CHUNK_SCORES", 5)
    with pytest.raises(ValueError, match="row 2, column 3"):
        rerank(holding(np.nan, 2, 3))
