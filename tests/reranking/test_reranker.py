"""`Reranker`: fitted once, each query alone; what all methods that can be fitted promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin import Reranker, registry, rerank
from ascl_plugin.reranking.bank_check import occurrence, skewness
from ascl_plugin.reranking.correction import BankMethod, Correction, fittable

METHODS = fittable()
CORRECTIONS = {name: registry.resolve("rerank", name).correction for name in METHODS}
ADDITIVE = [name for name in METHODS if CORRECTIONS[name].additive()]
STREAMS = [name for name in METHODS if CORRECTIONS[name].streams()]


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, size=shape) for shape in shapes]


def handed_out(scores, values):
    """Each row's scores in the order of its values, ties in the initial order."""
    initial = np.argsort(-scores, axis=1, kind="stable")
    order = np.argsort(-np.take_along_axis(values, initial, 1), axis=1, kind="stable")
    result = np.empty_like(scores)
    places = np.take_along_axis(initial, order, 1)
    np.put_along_axis(result, places, np.take_along_axis(scores, initial, 1), 1)
    return result


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_query_alone_equals_its_row_to_the_last_bit(name, dtype):
    bank, queries = (x.astype(dtype) for x in draw(0, (40, 203), (17, 203)))
    reranker = Reranker(name).fit(bank)
    among = reranker.transform(queries)
    assert among.shape == queries.shape and among.dtype == np.promote_types(dtype, np.float32)
    for query, row in zip(queries, among, strict=True):
        np.testing.assert_array_equal(reranker.transform(query), row)
        np.testing.assert_array_equal(reranker.transform(query[None])[0], row)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(METHODS),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 9999),
)
def test_fitted_on_the_queries_it_is_the_transductive_method(name, shape, seed):
    (sim,) = draw(seed, shape)
    i2t = Reranker(name).fit(sim).transform(sim)
    t2i = Reranker(name).fit(sim.T).transform(sim.T)
    wanted = rerank(sim, method=name)
    np.testing.assert_array_equal(handed_out(sim, i2t), wanted.i2t)
    np.testing.assert_array_equal(handed_out(np.ascontiguousarray(sim.T), t2i).T, wanted.t2i)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(METHODS),
    cuts=st.lists(st.integers(0, 25), max_size=4),
    block=st.sampled_from([1, 17, 2**20]),
    seed=st.integers(0, 9999),
)
def test_blocks_and_parts_of_a_bank_give_the_same(name, cuts, block, seed):
    bank, queries = draw(seed, (25, 7), (4, 7))
    wanted = Reranker(name).fit(bank).transform(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.reranking.bank.BLOCK_SCORES", block)
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", block)
        np.testing.assert_allclose(Reranker(name).fit(bank).transform(queries), wanted, atol=1e-9)
        if name not in STREAMS:
            with pytest.raises(ValueError, match="several passes"):
                Reranker(name).partial_fit(bank)
            return
        parts = Reranker(name)
        for part in np.split(bank, sorted(cuts)):
            if len(part):
                parts.partial_fit(part)
    assert parts.bank_size == 25
    np.testing.assert_allclose(parts.transform(queries), wanted, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_vectors_give_what_their_scores_give(name, monkeypatch):
    bank, gallery = (x.astype(np.float32) for x in draw(1, (30, 8), (11, 8)))
    wanted = Reranker(name).fit(bank @ gallery.T)
    monkeypatch.setattr("ascl_plugin.reranking.bank.PRODUCTS", 50)
    monkeypatch.setattr("ascl_plugin.reranking.bank._COLUMNS", 4)
    found = Reranker(name).fit(bank_vectors=bank, gallery_vectors=gallery)
    (query,) = draw(2, (11,))
    np.testing.assert_allclose(found.transform(query), wanted.transform(query), atol=1e-5)
    assert found.bank_size == 30 and found.gallery_size == 11


@pytest.mark.parametrize("name", ADDITIVE)
def test_inner_products_of_augmented_vectors_are_the_corrected_scores(name):
    bank, gallery, queries = (x.astype(np.float32) for x in draw(3, (50, 32), (23, 32), (9, 32)))
    reranker = Reranker(name).fit(bank_vectors=bank, gallery_vectors=gallery)
    wide, asked = reranker.augment_gallery(gallery), reranker.augment_queries(queries)
    assert wide.shape == (23, 33) and asked.shape == (9, 33) and wide.dtype == np.float32
    corrected = reranker.transform(queries @ gallery.T)
    np.testing.assert_allclose(asked @ wide.T, corrected, atol=1e-5)
    np.testing.assert_allclose(
        reranker.augment_queries(queries[4]) @ wide.T, corrected[4], atol=1e-5
    )
    np.testing.assert_allclose(queries @ gallery.T + reranker.gallery_bias, corrected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(ADDITIVE)))
def test_a_method_without_a_bias_says_so(name):
    (bank,) = draw(4, (5, 6))
    reranker = Reranker(name).fit(bank)
    for use in (lambda: reranker.gallery_bias, lambda: reranker.augment_gallery(bank.T)):
        with pytest.raises(ValueError, match=rf"'{name}' .* no bias to export; use transform, or"):
            use()


@pytest.mark.parametrize("name", METHODS)
def test_order_of_bank_queries_and_gallery_is_of_no_account(name):
    bank, queries = draw(5, (20, 9), (6, 9))
    rng = np.random.default_rng(5)
    rows, order, columns = (rng.permutation(n) for n in (20, 6, 9))
    wanted = Reranker(name).fit(bank).transform(queries)
    found = Reranker(name).fit(bank[rows][:, columns]).transform(queries[order][:, columns])
    np.testing.assert_allclose(found, wanted[order][:, columns], atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_halves_count_as_the_same_numbers_in_float32(name, dtype):
    bank, queries = (torch.from_numpy(x).to(dtype) for x in draw(6, (20, 9), (6, 9)))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    found = Reranker(name).fit(bank).transform(queries)
    assert found.dtype == wide and isinstance(found, torch.Tensor)
    assert torch.equal(found, Reranker(name).fit(bank.to(wide)).transform(queries.to(wide)))
    mixed = Reranker(name).fit(bank.double()).transform(queries)
    assert mixed.dtype == wide
    torch.testing.assert_close(mixed, found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_file_gives_the_same_scores_and_has_no_statistics(name, tmp_path):
    bank, queries = (x.astype(np.float32) for x in draw(7, (20, 9), (6, 9)))
    path = tmp_path / "bias.safetensors"
    fitted = Reranker(name).fit(bank)
    fitted.save(path)
    loaded = Reranker.load(path)
    np.testing.assert_array_equal(loaded.transform(queries), fitted.transform(queries))
    assert (loaded.method, loaded.options, loaded.bank_size) == (name, fitted.options, 20)
    with pytest.raises(ValueError, match=r"file keeps no statistics|several passes"):
        loaded.partial_fit(bank)
    assert loaded.fit(bank[:3]).bank_size == 3


def test_wrong_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "wrong.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        Reranker.load(path)
    good = {"format": "ascl_plugin.Reranker 1", "method": "nnn", "options": "{}", "bank_size": "3"}
    bias = {"bias": torch.zeros(4)}
    cases = [
        (bias, {}, r"not written by Reranker.save \(it holds bias\)"),
        (bias, good | {"method": "os:system"}, "no method 'os:system'"),
        (bias, good | {"method": "bidirectional"}, "cannot be fitted"),
        (bias, good | {"options": '{"alpha": -1}'}, "alpha must be"),
        (bias, good | {"options": '{"beta": 1}'}, "no option 'beta'"),
        (bias, good | {"options": "[]"}, "options are"),
        (bias, good | {"bank_size": "many"}, "no file of Reranker"),
        ({"other": torch.zeros(4)}, good, "no file of Reranker"),
        ({}, good, "no file of Reranker"),
        ({"bias": torch.full((4,), torch.nan)}, good, "do not give finite scores"),
        ({"bias": torch.zeros(4, 4)}, good, "do not give finite scores"),
    ]
    for tensors, header, message in cases:
        save_file(tensors, path, metadata=header)
        with pytest.raises(ValueError, match=message) as error:
            Reranker.load(path)
        assert str(path) in str(error.value)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match=r"no file of Reranker\.save"):
        Reranker.load(path)


def test_nnn_by_hand():
    """Bank columns 3, 1, 5 and 0, 2, 1: the two highest average 4 and 1.5; half of it is taken off
    4 and 3. A second part with 9 and 0 makes them 7 and 1.5.
    """
    bank = np.array([[3.0, 0.0], [1.0, 2.0], [5.0, 1.0]])
    reranker = Reranker("nnn", alpha=0.5, neighbors=2).fit(bank)
    assert reranker.gallery_bias.tolist() == [-2.0, -0.75]
    assert reranker.transform(np.array([4.0, 3.0])).tolist() == [2.0, 2.25]
    assert reranker.partial_fit(np.array([[9.0, 0.0]])).gallery_bias.tolist() == [-3.5, -0.75]
    assert Reranker("csls", neighbors=2).fit(bank).gallery_bias.tolist() == [-2.0, -0.75]


def test_qb_norm_keeps_hubs():
    """The bank likes item 2 best, so a query that likes item 0 best stays as it is."""
    reranker = Reranker("qb_norm").fit(np.array([[4.0, 0.0, 5.0]]))
    assert reranker.transform(np.array([3.0, 2.0, -9.0])).tolist() == [3, 2, -9]
    np.testing.assert_allclose(reranker.transform(np.array([3.0, 2, 4])), [-1, 2, -1])


def test_held_back_queries_are_not_learned_from():
    bank = np.arange(40.0).reshape(10, 4)
    reranker = Reranker("nnn", alpha=1, neighbors=1).fit(bank, hold_back=2)  # rows 0 and 5
    others = np.delete(bank, [0, 5], axis=0)
    assert reranker.bank_size == 8
    np.testing.assert_array_equal(reranker.gallery_bias, -others.max(axis=0))
    assert reranker.check(k=2) == reranker.check(bank[[0, 5]], k=2)
    with pytest.raises(ValueError, match="hold_back=500"):
        Reranker("nnn").fit(bank).check()


def test_skewness_by_hand():
    """Counts 3, 1, 0, 0: mean 1, deviations 2, 0, -1, -1: (8 - 2) / 4 over (6 / 4) ** 1.5."""
    scores = torch.tensor([[9.0, 1, 0, 0], [9, 0, 0, 0], [9, 8, 0, 0], [0, 9, 0, 0]])
    counts = occurrence(scores, 1)
    assert counts.tolist() == [3, 1, 0, 0]
    assert skewness(counts) == pytest.approx(1.5 / 1.5**1.5)
    assert skewness(torch.ones(4)) == 0


def test_a_registered_correction_is_fitted_too(monkeypatch):
    from dataclasses import dataclass

    monkeypatch.setattr(registry, "_registered", {})

    @dataclass(frozen=True, kw_only=True)
    class LessMean(Correction):
        alpha: float = 1.0

        def update(self, state, block):
            total, count = state.get("total", 0), state.get("count", 0)
            return {"total": total + block.sum(0), "count": count + block.new_tensor(len(block))}

        def bias(self, state):
            return -self.alpha * state["total"] / state["count"]

    registry.register("rerank", "less_mean")(BankMethod("less_mean", LessMean))
    (sim,) = draw(8, (5, 6))
    assert "less_mean" in fittable()
    reranker = Reranker("less_mean", alpha=0.5).fit(sim)
    np.testing.assert_allclose(reranker.transform(sim), sim - 0.5 * sim.mean(0))
    wanted = handed_out(sim, sim - 0.5 * sim.mean(0))
    np.testing.assert_array_equal(rerank(sim, method="less_mean", alpha=0.5).i2t, wanted)


SIM = np.eye(3)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: Reranker("bidirectional"), ValueError, "'bidirectional' .* cannot be fitted; the"),
        (lambda: Reranker("mine:Class"), ValueError, "no method 'mine:Class'"),
        (lambda: Reranker("csls", alpha=1), TypeError, "no option 'alpha'; it has neighbors"),
        (lambda: Reranker("csls", bank_i2t=SIM), TypeError, "no option 'bank_i2t'"),
        (lambda: Reranker("csls", neighbors=0), ValueError, "neighbors must be"),
        (lambda: Reranker("csls").transform(SIM), ValueError, "not fitted: call fit"),
        (lambda: Reranker("csls").gallery_bias, ValueError, "not fitted"),
        (lambda: Reranker("csls").save("x"), ValueError, "not fitted"),
        (lambda: Reranker("csls").fit(), ValueError, "pass bank_scores alone, or bank_vectors and"),
        (lambda: Reranker("csls").fit(SIM, bank_vectors=SIM), ValueError, "bank_scores alone"),
        (lambda: Reranker("csls").fit(bank_vectors=SIM), ValueError, "bank_scores alone"),
        (lambda: Reranker("csls").fit(SIM, hold_back=3), ValueError, "leaves nothing of 3"),
        (lambda: Reranker("csls").fit(SIM, hold_back=-1), ValueError, "hold_back must be"),
        (lambda: Reranker("csls").fit(SIM.astype(int)), TypeError, "bank_scores must hold floats"),
        (lambda: Reranker("csls").fit(SIM[0]), ValueError, r"must be \(bank, gallery\), got"),
        (
            lambda: Reranker("csls").fit(bank_vectors=SIM, gallery_vectors=SIM[:, :2]),
            ValueError,
            "bank_vectors are 3 wide and gallery_vectors 2",
        ),
        (
            lambda: Reranker("csls").fit(SIM).transform(SIM[:, :2]),
            ValueError,
            "query_scores has 2 gallery items, the Reranker was fitted on 3",
        ),
        (
            lambda: Reranker("csls").fit(SIM).partial_fit(SIM[:, :2]),
            ValueError,
            "the bank has 2 gallery items",
        ),
        (
            lambda: Reranker("csls").fit(SIM).augment_gallery(SIM[:2]),
            ValueError,
            "gallery_vectors has 2 gallery items",
        ),
        (
            lambda: Reranker("nnn").fit(np.full((2, 2), 3e38, np.float32)),
            ValueError,
            "not finite: scores of the bank are too large",
        ),
    ],
)  # fmt: skip
def test_errors(use, error, message):
    with pytest.raises(error, match=message):
        use()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["bank_scores", "query_scores", "bank_vectors", "gallery_vectors"])
def test_nan_and_infinity_are_named_by_row_and_column(value, name):
    bad = np.ones((4, 3))
    bad[2, 1] = value
    good = Reranker("nnn").fit(np.ones((4, 3)))
    with pytest.raises(ValueError, match=rf"{name} holds {value} at row 2, column 1"):
        if name == "bank_scores":
            Reranker("nnn").fit(bad)
        elif name == "query_scores":
            good.transform(bad)
        else:
            vectors = {"bank_vectors": np.ones((2, 3)), "gallery_vectors": np.ones((2, 3))}
            Reranker("nnn").fit(**(vectors | {name: bad}))
