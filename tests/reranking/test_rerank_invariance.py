"""What `rerank` keeps, and what it is blind to: labels, order of the items, scale of the scores."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.reranking import rerank
from ascl_plugin.scores import as_tensor

options = {
    "k": st.integers(1, 13),
    "reverse_k": st.none() | st.integers(1, 9),
    "text_neighbors": st.integers(1, 13),
}


def sims(ties):
    shape = st.tuples(st.integers(1, 8), st.integers(1, 11))
    few = st.integers(-2, 2).map(float)
    many = st.floats(-10, 10, width=16)
    return hnp.arrays(np.float64, shape, elements=few if ties else many)


MAPS = {
    "cube": lambda x: x**3,
    "exp": np.exp,
    "affine": lambda x: 3 * x - 7,
    "sign root": lambda x: np.sign(x) * np.sqrt(np.abs(x)),
}


@settings(deadline=None, max_examples=80)
@given(
    ranks=st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(0, 99)),
    k=options["k"],
    reverse_k=options["reverse_k"],
    mix=st.sampled_from([0.0, 0.3, 1.0]),
    name=st.sampled_from(list(MAPS)),
    embedded=st.booleans(),
)
def test_a_rising_map_of_the_scores_changes_nothing(ranks, k, reverse_k, mix, name, embedded):
    """Ranks are all that it looks at, `mix` included; not so neighbours from columns of scores."""
    images, texts, seed = ranks
    draw = np.random.default_rng(seed)
    values = np.arange(images * texts) / 16 - 2
    sim = draw.permutation(values).reshape(images, texts)
    more = {"mix": mix, "text_neighbors": 1 + embedded}
    more["text_embeddings"] = draw.normal(size=(texts, 3)) if embedded else None
    plain, moved = (rerank(x, k, reverse_k, **more) for x in (sim, MAPS[name](sim)))
    np.testing.assert_array_equal(moved.i2t, MAPS[name](plain.i2t))
    np.testing.assert_array_equal(moved.t2i, MAPS[name](plain.t2i))


@settings(deadline=None, max_examples=60)
@given(
    sim=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-5, 5, width=16),
        unique=True,
    ),
    neighbors=st.integers(1, 3),
    mix=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
    k=options["k"],
    reverse_k=options["reverse_k"],
)
def test_permuting_the_items_permutes_the_result(sim, k, reverse_k, neighbors, mix, seed):
    """Scores without ties; those are settled by index."""
    images, texts = sim.shape
    order = np.random.default_rng(seed)
    rows, columns = order.permutation(images), order.permutation(texts)
    embeddings = order.normal(size=(texts, 4))
    plain = rerank(sim, k, reverse_k, neighbors, embeddings, mix=mix)
    moved = rerank(sim[rows][:, columns], k, reverse_k, neighbors, embeddings[columns], mix=mix)
    np.testing.assert_array_equal(moved.i2t, plain.i2t[rows][:, columns])
    np.testing.assert_array_equal(moved.t2i, plain.t2i[rows][:, columns])


def test_the_default_neighbours_do_not_hurt():
    """Five noisy captions an image: both directions must not lose (a check of the default)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(100, 24, generator=generator)
    texts = images.repeat_interleave(5, 0) + torch.randn(500, 24, generator=generator)
    sim = torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(texts).T
    owner = torch.arange(500) // 5
    result = rerank(sim)
    assert (owner[result.i2t.argmax(1)] == torch.arange(100)).sum() >= (
        owner[sim.argmax(1)] == torch.arange(100)
    ).sum()
    assert (result.t2i.argmax(0) == owner).sum() >= (sim.argmax(0) == owner).sum()


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
