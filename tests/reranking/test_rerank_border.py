"""`rerank` at its border: types, dtypes, strides, devices, and what it says to bad input."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

from ascl_plugin import build
from ascl_plugin import scores as similarity
from ascl_plugin.reranking import Reranked, rerank

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_stays_torch(device, dtype):
    sim = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    wanted = rerank(sim.cpu(), k=5, text_neighbors=2)
    for given_sim in (sim, sim.T.contiguous().T, sim.clone().requires_grad_()):
        result = rerank(given_sim, k=5, text_neighbors=2)
        assert isinstance(result, Reranked)
        for matrix, expected in zip(result, wanted, strict=True):
            assert (matrix.dtype, matrix.device.type) == (dtype, device)
            assert not matrix.requires_grad
            assert torch.equal(matrix.cpu(), expected)


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


def test_method_none_copies():
    sim = np.random.default_rng(0).normal(size=(3, 4))
    result = rerank(sim, method="none")
    result.i2t[:] = 0
    assert sim.all() and np.array_equal(result.t2i, sim)


def test_no_argument_takes_labels():
    names = set(inspect.signature(rerank).parameters)
    assert names == {
        "sim", "k", "reverse_k", "text_neighbors", "text_embeddings", "method", "options"
    }  # fmt: skip
    with pytest.raises(TypeError, match="caption_to_image"):
        rerank(np.eye(2), caption_to_image=[0, 1])


def test_built_by_name():
    sim = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]])
    assert build("rerank", "bidirectional", k=2)(sim).t2i.tolist() == sim.tolist()


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
        ([[1.0]], {}, TypeError, "numpy array or a torch tensor, got list"),
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
    monkeypatch.setattr(similarity, "CHUNK_SCORES", 5)
    with pytest.raises(ValueError, match="row 2, column 3"):
        rerank(holding(np.nan, 2, 3))


def test_needs_torch_and_numpy_alone():
    """In a process that cannot import what the extras bring."""
    code = (
        "import sys\n"
        "for name in ('accelerate', 'transformers', 'datasets', 'PIL', 'safetensors', 'timm'):\n"
        "    sys.modules[name] = None\n"
        "import numpy, ascl_plugin.metrics.recall\n"
        "from ascl_plugin.reranking import rerank\n"
        "rerank(numpy.eye(3))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
