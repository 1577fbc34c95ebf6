"""Corrections by a bank, later ones: each against its equation and a case worked by hand."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, pstdev

import numpy as np
import pytest
import torch

from ascl_plugin.reranking import Reranker, rerank
from ascl_plugin.reranking.correction import blocks_of
from ascl_plugin.reranking.dual_bank import DBNorm, DynamicDBNorm, Sinkhorn
from ascl_plugin.reranking.hubness import DistributionNormalization
from ascl_plugin.reranking.reorder import sort_rows
from ascl_plugin.reranking.scaling import LocalScaling, MutualProximity

UNIT = 1 / math.log(2)  # a temperature: exp(s / UNIT) = 2 ** s
HUB = torch.tensor([[3.0, 2.0], [4.0, 0.0]])


def values(correction, bank, scores, size=2):
    """Corrected scores, the bank read in blocks of `size` rows."""
    bank, scores = torch.as_tensor(bank).double(), torch.as_tensor(scores).double()
    summary = correction.summary(correction.fit(lambda: iter(bank.split(size))))
    return correction.correct(summary, scores)


def drawn(seed, *shapes):
    draw = np.random.default_rng(seed)
    return [draw.uniform(-0.5, 0.9, size=shape) for shape in shapes]


def twin_dn(bank, row, alpha):
    return [s - alpha * fmean(b[g] for b in bank) for g, s in enumerate(row)]


def twin_sinkhorn(bank, row, temperature, iterations):
    kernel = [[math.exp(s / temperature) for s in b] for b in bank]
    rows, columns = [1.0] * len(bank), []
    for _ in range(iterations):
        columns = [
            1 / sum(r * k[g] for r, k in zip(rows, kernel, strict=True)) for g in range(len(row))
        ]
        rows = [1 / sum(c * x for c, x in zip(columns, k, strict=True)) for k in kernel]
    return [s + temperature * math.log(columns[g]) for g, s in enumerate(row)]


def twin_dbnorm(bank, row, temperature, gallery_temperature, other_items):
    parts = ((bank[other_items:], temperature), (bank[:other_items], gallery_temperature))
    found = [
        math.prod(
            math.exp(s / t) / (sum(math.exp(b[g] / t) for b in rows) if rows else 1)
            for rows, t in parts
        )
        for g, s in enumerate(row)
    ]
    return [math.log(x) / (1 / temperature + 1 / gallery_temperature) for x in found]


def twin_gaussian(bank, row):
    own, found = NormalDist(fmean(row), pstdev(row)), []
    for g, s in enumerate(row):
        column = [b[g] for b in bank]
        found.append(math.log(own.cdf(s) * NormalDist(fmean(column), pstdev(column)).cdf(s)))
    return found


def twin_empirical(bank, row):
    return [fmean(x < s for x in row) * fmean(b[g] < s for b in bank) for g, s in enumerate(row)]


def twin_scaling(bank, row, neighbors, scaling, self_score):
    """Half the negative of d^2 / r(g), what is left of either form for one query."""

    def distance(s):
        return math.sqrt(2 * (self_score - s))

    found = []
    for g, s in enumerate(row):
        near = sorted(distance(b[g]) for b in bank)[:neighbors]
        found.append(-(distance(s) ** 2) / 2 / (near[-1] if scaling == "gaussian" else fmean(near)))
    return found


CASES = [
    (DistributionNormalization, twin_dn, {"alpha": 0.3}),
    (Sinkhorn, twin_sinkhorn, {"temperature": 0.1, "iterations": 1}),
    (Sinkhorn, twin_sinkhorn, {"temperature": 0.1, "iterations": 7}),
    (DBNorm, twin_dbnorm, {"temperature": 0.1, "gallery_temperature": 0.4, "other_items": 0}),
    (DBNorm, twin_dbnorm, {"temperature": 0.1, "gallery_temperature": 0.4, "other_items": 3}),
    (MutualProximity, twin_gaussian, {}),
    (MutualProximity, twin_empirical, {"distribution": "empirical"}),
    (LocalScaling, twin_scaling, {"neighbors": 4, "scaling": "gaussian", "self_score": 1}),
    (LocalScaling, twin_scaling, {"neighbors": 4, "scaling": "nicdm", "self_score": 1.5}),
]


@pytest.mark.parametrize(("correction", "twin", "options"), CASES)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_equals_the_equation(correction, twin, options, size):
    bank, scores = drawn(0, (9, 6), (5, 6))
    given = {k: v for k, v in options.items() if k != "distribution"}
    found = values(correction(**options), bank, scores, size).tolist()
    for row, result in zip(scores.tolist(), found, strict=True):
        assert result == pytest.approx(twin(bank.tolist(), row, **given), rel=1e-9)


def test_dn_by_hand():
    """Means of the columns are 3.5 and 1: 3 - 1.75 and 2 - 0.5 change places."""
    assert values(DistributionNormalization(), HUB, HUB).tolist()[0] == [1.25, 1.5]


def test_sinkhorn_by_hand():
    """2 ** HUB is 8 4 / 16 1; columns sum to 24 and 5: 1/3 4/5 / 2/3 1/5, rows to 17/15 and 13/15.
    Scaled: columns 5/17 + 10/13 = 235/221 and 12/17 + 3/13 = 207/221. Hence after two iterations
    log2 v is -log2(24 * 235/221) and -log2(5 * 207/221).
    """
    bias = values(Sinkhorn(temperature=UNIT, iterations=2), HUB, torch.zeros(1, 2))[0]
    wanted = [-math.log2(24 * 235 / 221), -math.log2(5 * 207 / 221)]
    assert bias.tolist() == pytest.approx(wanted)


def test_sinkhorn_balances_queries_and_gallery():
    (bank,) = drawn(1, (5, 8))
    balanced = (values(Sinkhorn(temperature=0.1, iterations=200), bank, bank) / 0.1).softmax(dim=1)
    np.testing.assert_allclose(balanced.sum(0), 5 / 8, rtol=1e-6)


def test_sinkhorn_stands_far_columns():
    """Column 2 is 1,000 temperatures below: exp would be 0 in any precision."""
    bank = torch.tensor([[0.5, 0.4, -49.5], [0.2, 0.6, -49.8]])
    found = values(Sinkhorn(), bank.float(), bank)
    assert found.isfinite().all()
    np.testing.assert_allclose(found[:, 2], values(Sinkhorn(), bank + torch.tensor([0, 0, 50]),
                               bank + torch.tensor([0, 0, 50]))[:, 2], atol=1e-5)  # fmt: skip


def test_other_items_take_their_share():
    """The bank's last columns are balanced with the gallery, and get no bias."""
    bank, others, scores = drawn(2, (9, 6), (9, 3), (4, 6))
    wide = np.hstack([bank, others])
    wanted = values(Sinkhorn(), wide, np.hstack([scores, np.zeros((4, 3))]))[:, :6]
    found = Reranker("sinkhorn", other_items=3).fit(wide).transform(scores)
    np.testing.assert_allclose(found, wanted)
    assert not np.allclose(found, values(Sinkhorn(), bank, scores))
    banks = {"bank_i2t": wide, "bank_t2i": np.vstack([drawn(3, (4, 5))[0], np.zeros((3, 5))])}
    result = rerank(scores, method="sinkhorn", other_items=3, **banks)
    assert (np.argsort(-result.i2t) == np.argsort(-found)).all() and not result.transductive


def test_dbnorm_by_hand():
    """Queries sum to 24 and 5 as above, the other item (1, 2) to 2 and 4. Of the row (3, 2):
    8/24 * 8/2 = 4/3 and 4/5 * 4/4 = 4/5.
    """
    bank = torch.cat([torch.tensor([[1.0, 2.0]]), HUB])
    options = {"temperature": UNIT, "gallery_temperature": UNIT, "other_items": 1}
    found = values(DBNorm(**options), bank, HUB)[0]
    assert (2 ** (2 * found)).tolist() == pytest.approx([4 / 3, 4 / 5])


def test_dynamic_dbnorm_by_hand():
    """The queries' hub is item 0, the other item's is item 1. Row (3, 2), best item 0: one softmax,
    3 * 8/24 = 1 and 2 * 4/5 = 1.6. Row (2, 3), best item 1: the other, 2 * 4/2 = 4 and 3 * 8/4 = 6.
    Two hubs each: both, as above. Item 2 is nobody's hub: a row that prefers it stays.
    """
    bank = torch.tensor([[1.0, 2.0, -9.0], [3.0, 2.0, -9.0], [4.0, 0.0, -9.0]])
    rows = torch.tensor([[3.0, 2.0, -9.0], [2.0, 3.0, -9.0], [1.0, 2.0, 7.0]])
    options = {"temperature": UNIT, "gallery_temperature": UNIT, "other_items": 1}
    found = values(DynamicDBNorm(**options), bank, rows)
    assert float(found[0, 0] / found[0, 1]) == pytest.approx(1 / 1.6)
    assert float(found[1, 0] / found[1, 1]) == pytest.approx(4 / 6)
    assert found[2].tolist() == rows[2].tolist()
    found = values(DynamicDBNorm(activation_k=2, **options), bank, rows)
    assert found[0, :2].exp().tolist() == pytest.approx([4 / 3, 4 / 5])


def test_mutual_proximity_by_hand():
    """Row (3, 2) has mean 2.5 and deviation 0.5; the columns 3.5, 0.5 and 1, 1. Item 0 is one above
    for the query, one below for the item, item 1 the other way round: 0.8413 * 0.1587 both.
    """
    found = values(MutualProximity(), HUB, HUB)[0].exp()
    assert found.tolist() == pytest.approx([0.8413447 * 0.1586553] * 2, rel=1e-5)


def test_empirical_mutual_proximity_by_hand():
    """Row (3.5, 2.5, 1) is above 2, 1, 0 of its 3, and above 1, 2, 1 of the 2 scores of each item:
    2/3 * 1/2, 1/3 * 1 and 0. Alone and among others."""
    bank = torch.tensor([[3.0, 2.0, 0.0], [4.0, 0.0, 2.0]])
    row = torch.tensor([[3.5, 2.5, 1.0]])
    for scores in (row, row.repeat(3, 1)):
        found = values(MutualProximity(distribution="empirical"), bank, scores)[-1]
        assert found.tolist() == pytest.approx([1 / 3, 1 / 3, 0])


def test_local_scaling_by_hand():
    """Distances to item 0 are 1 and 0.6, to item 1 0.4 and 0.8: the second nearest 1 and 0.8, the
    means 0.8 and 0.6. Row (0.5, 0.68) is 0.5 and 0.32 from 1.
    """
    bank, row = torch.tensor([[0.5, 0.92], [0.82, 0.68]]), torch.tensor([[0.5, 0.68]])
    found = values(LocalScaling(neighbors=2), bank, row)[0]
    assert found.tolist() == pytest.approx([-0.5, -0.4])
    found = values(LocalScaling(neighbors=2, scaling="nicdm"), bank, row)[0]
    assert found.tolist() == pytest.approx([-0.5 / 0.8, -0.32 / 0.6])


def test_a_high_score_is_not_rounded_to_certain():
    """At 6 to 8 deviations P is 1 in float32, its distance from 1 is not."""
    bank = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[6.0, 7.0, 8.0]])
    found = values(MutualProximity(), bank, rows).float()
    assert found[0].unique().numel() == 3


def unit(draw, *shape):
    vectors = draw.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


NNN_PACKAGE = [[11, 22, 28, 32, 5], [20, 5, 14, 8, 31], [8, 20, 19, 31, 28]]
DN_PACKAGE = [[11, 22, 28, 32, 26], [20, 14, 31, 8, 5], [8, 20, 31, 19, 28]]


def test_nnn_and_dn_equal_the_package():
    """First five of three queries by `nnn-retrieval` 1.0.1: `NNNRanker` (alternate_ks=16,
    alternate_weight=0.75) and `DNRanker` (dn_lambda=0.5, alternate_weight=0) on the same vectors.
    """
    draw = np.random.default_rng(0)
    gallery, bank, queries = (unit(draw, n, 8) for n in (40, 60, 3))
    scores, banked = queries @ gallery.T, bank @ gallery.T
    for method, options, wanted in (
        ("nnn", {"alpha": 0.75, "neighbors": 16}, NNN_PACKAGE),
        ("dn", {"alpha": 0.5}, DN_PACKAGE),
    ):
        found = Reranker(method, **options).fit(banked).transform(scores)
        assert np.argsort(-found, axis=1)[:, :5].tolist() == wanted


@pytest.mark.parametrize("name", ["sinkhorn", "dbnorm", "dn"])
def test_additive_ones_export_a_bias(name):
    draw = np.random.default_rng(1)
    gallery, bank, queries = (unit(draw, n, 8) for n in (20, 30, 4))
    fitted = Reranker(name).fit(bank_vectors=bank, gallery_vectors=gallery)
    product = fitted.augment_queries(queries) @ fitted.augment_gallery(gallery).T
    np.testing.assert_allclose(product, fitted.transform(queries @ gallery.T), atol=1e-6)


@pytest.mark.parametrize("name", ["dbnorm_dynamic", "mutual_proximity", "local_scaling"])
@pytest.mark.parametrize("extra", [{}, {"distribution": "empirical"}])
def test_others_are_fitted_and_kept(name, extra, tmp_path):
    if extra and name != "mutual_proximity":
        return
    pytest.importorskip("safetensors", reason="extra `recipes`")
    bank, scores = drawn(4, (9, 6), (5, 6))
    fitted = Reranker(name, **extra).fit(bank)
    fitted.save(tmp_path / "bias.safetensors")
    again = Reranker.load(tmp_path / "bias.safetensors")
    np.testing.assert_array_equal(again.transform(scores), fitted.transform(scores))
    parts = Reranker(name, **extra).partial_fit(bank[:4]).partial_fit(bank[4:])
    np.testing.assert_allclose(parts.transform(scores), fitted.transform(scores))
    with pytest.raises(ValueError, match="no bias to export"):
        _ = fitted.gallery_bias


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sinkhorn", "iterations": 0}, "iterations must be an integer of at least 1"),
        ({"method": "sinkhorn", "other_items": -1}, "other_items must be .* at least 0, got -1"),
        ({"method": "sinkhorn", "other_items": 1}, "sinkhorn: other_items needs bank_i2t and"),
        ({"method": "dbnorm", "gallery_temperature": 0}, "gallery_temperature must be .* above 0"),
        ({"method": "dbnorm", "other_items": 2}, "other_items=2 leaves no query among the 2 rows"),
        ({"method": "mutual_proximity", "distribution": "x"}, "must be gaussian or empirical, got"),
        ({"method": "local_scaling", "scaling": "x"}, "scaling must be gaussian or nicdm, got 'x'"),
        (
            {"method": "sinkhorn", "other_items": 2, "bank_i2t": np.ones((4, 3)), "bank_t2i": HUB},
            r"bank_i2t .* sim has 3 texts: .* for each and 2 more for other_items",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        rerank(np.ones((2, 3)), **options)


def test_threads_share_the_rows(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    monkeypatch.setattr("ascl_plugin.reranking.reorder._SHARED", 1)
    for rows in (1, 2, 7):
        values = torch.randint(99, (rows, 5), generator=torch.Generator().manual_seed(rows))
        wanted = values.sort(dim=1).values
        assert torch.equal(sort_rows(values), wanted) and torch.equal(values, wanted)


def test_blocks_are_whole_rows():
    assert [len(b) for b in blocks_of(torch.zeros(3, 2**24))] == [1, 1, 1]
