"""Every method of hubness reduction and k-reciprocal against its paper's equation, and by hand.

The promises that all methods keep are tested here for all of them, the default one included.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.reranking import rerank

BANKED = ("inverted_softmax", "dual_softmax", "csls", "nnn", "qb_norm")
METHODS = (*BANKED, "bidirectional", "k_reciprocal", "none")


def handed_out(scores, values):
    """A row's scores in the order of its values, equal ones in the initial order."""
    places = range(len(scores))
    initial = sorted(places, key=lambda g: (-scores[g], g))
    result = [0.0] * len(scores)
    order = sorted(initial, key=lambda g: -values[g])
    for g, score in zip(order, sorted(scores, reverse=True), strict=True):
        result[g] = score
    return result


def highest(bank, g, count):
    column = sorted((row[g] for row in bank), reverse=True)[:count]
    return sum(column) / len(column)


def inverse_prior(s, bank, q, g, beta):
    return math.exp(beta * s[q][g]) / sum(math.exp(beta * row[g]) for row in bank)


def value_inverted_softmax(s, bank, q, g, temperature=0.05):
    return inverse_prior(s, bank, q, g, 1 / temperature)


def value_dual_softmax(s, bank, q, g, temperature=0.05):
    return s[q][g] * inverse_prior(s, bank, q, g, 1 / temperature)


def value_csls(s, bank, q, g, neighbors=10):
    of_query = sum(sorted(s[q], reverse=True)[:neighbors]) / min(neighbors, len(s[q]))
    return 2 * s[q][g] - of_query - highest(bank, g, neighbors)


def value_nnn(s, bank, q, g, alpha=0.75, neighbors=16):
    return s[q][g] - alpha * highest(bank, g, neighbors)


def value_qb_norm(s, bank, q, g, temperature=0.05, activation_k=1):
    gallery = range(len(s[q]))
    activated = {
        best for row in bank for best in sorted(gallery, key=lambda g: (-row[g], g))[:activation_k]
    }
    if max(gallery, key=lambda g: s[q][g]) not in activated:
        return s[q][g]
    return inverse_prior(s, bank, q, g, 1 / temperature)


def value_none(s, bank, q, g):
    return s[q][g]


def twin(name, s, bank, **options):
    """One direction: scores and bank as lists with queries in rows."""
    value = globals()[f"value_{name}"]
    return [
        handed_out(row, [value(s, bank, q, g, **options) for g in range(len(row))])
        for q, row in enumerate(s)
    ]


def twin_k_reciprocal(s, vectors, k1, k2, weight):
    """Eqs 2, 3, 7, 10-12 with sets; `vectors` of the gallery, of length 1."""
    queries, gallery = range(len(s)), range(len(s[0]))
    cosine = [[float(a @ b) for b in vectors] for a in vectors]

    def top(row, k):
        return sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]

    def distances(row):
        return [(max(row) - x) / ((max(row) - min(row)) or 1) for x in row]

    def near(g, k):
        return [g, *[j for j in top(cosine[g], len(gallery)) if j != g][:k]]

    def reciprocal(g, k):
        return {j for j in near(g, k) if g in near(j, k)}

    def extended(found):
        result = set(found)
        for c in found:
            half = reciprocal(c, k1 // 2)
            if len(found & half) >= 2 / 3 * len(half):
                result |= half
        return result

    def code(members, distance):
        weights = [math.exp(-distance[g]) if g in members else 0.0 for g in gallery]
        total = sum(weights)
        return np.array([w / total if total else 0.0 for w in weights])

    codes = [code(extended(reciprocal(g, k1)), distances(cosine[g])) for g in gallery]
    final = [np.mean([codes[j] for j in near(g, k2 - 1)], axis=0) for g in gallery]
    result = []
    for q in queries:
        found = {g for g in top(s[q], k1) if q in top([s[p][g] for p in queries], k1)}
        distance = distances(s[q])
        own = code(extended(found), distance)
        own = np.mean([own, *[codes[g] for g in top(s[q], k2 - 1)]], axis=0)
        jaccard = [1 - np.minimum(own, v).sum() / np.maximum(own, v).sum() for v in final]
        values = [-((1 - weight) * j + weight * d) for j, d in zip(jaccard, distance, strict=True)]
        result.append(handed_out(s[q], values))
    return result


def profiles(s):
    """Unit vectors of the columns, each query's mean over the gallery taken off."""
    columns = (s - s.mean(axis=1, keepdims=True)).T
    return columns / np.maximum(np.linalg.norm(columns, axis=1, keepdims=True), 1e-12)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def draw(seed, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.uniform(-1, 1, size=shape) for shape in shapes]


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from([*BANKED, "none"]),
    shape=shapes,
    banks=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    neighbors=st.integers(1, 12),
    temperature=st.floats(0.03, 2),
    seed=st.integers(0, 9999),
    chunk=st.sampled_from([1, 13, 2**20]),
)
def test_equals_the_equation(name, shape, banks, neighbors, temperature, seed, chunk):
    images, texts = shape
    sim, bank_i2t, bank_t2i = draw(seed, shape, (banks[0], texts), (images, banks[1]))
    options = {
        "qb_norm": {"temperature": temperature, "activation_k": neighbors},
        "csls": {"neighbors": neighbors},
        "nnn": {"neighbors": neighbors, "alpha": temperature},
        "none": {},
    }.get(name, {"temperature": temperature})
    drawn = {"bank_i2t": bank_i2t, "bank_t2i": bank_t2i}
    given_banks = {k: v for k, v in drawn.items() if name in BANKED and v.size}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        patch.setattr("ascl_plugin.reranking.correction.BLOCK_SCORES", 2 * chunk)
        result = rerank(sim, method=name, **options, **given_banks)
    i2t_bank = given_banks.get("bank_i2t", sim).tolist()
    t2i_bank = given_banks.get("bank_t2i", sim).T.tolist()
    assert result.i2t.tolist() == twin(name, sim.tolist(), i2t_bank, **options)
    assert result.t2i.T.tolist() == twin(name, sim.T.tolist(), t2i_bank, **options)
    assert result.transductive is (name != "none" and len(given_banks) < 2)
    assert (result.method, result.oracle) == (name, False)


@settings(deadline=None, max_examples=60)
@given(
    shape=shapes,
    k1=st.integers(1, 7),
    k2=st.integers(1, 5),
    weight=st.sampled_from([0.1, 0.3, 1.0]),
    seed=st.integers(0, 9999),
    chunk=st.sampled_from([1, 13, 2**20]),
)
def test_k_reciprocal_equals_the_equations(shape, k1, k2, weight, seed, chunk):
    sim, *vectors = draw(seed, shape, (shape[1], 3), (shape[0], 3))
    vectors = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]
    texts, images = vectors
    options = {"text_embeddings": texts, "image_embeddings": images}
    options |= {"k1": k1, "k2": k2, "initial_weight": weight}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ascl_plugin.scores.CHUNK_SCORES", chunk)
        result = rerank(sim, method="k_reciprocal", **options)
    assert result.i2t.tolist() == twin_k_reciprocal(sim.tolist(), texts, k1, k2, weight)
    assert result.t2i.T.tolist() == twin_k_reciprocal(sim.T.tolist(), images, k1, k2, weight)
    assert result.transductive


def test_without_embeddings_k_reciprocal_compares_profiles():
    (sim,) = draw(4, (9, 14))
    given_vectors = {"text_embeddings": profiles(sim), "image_embeddings": profiles(sim.T)}
    wanted = rerank(sim, method="k_reciprocal", k1=4, **given_vectors)
    result = rerank(sim, method="k_reciprocal", k1=4)
    np.testing.assert_array_equal(result.i2t, wanted.i2t)
    np.testing.assert_array_equal(result.t2i, wanted.t2i)


# exp(s / TEMPERATURE) = 2 ** s
TEMPERATURE = 1 / math.log(2)
HUB = np.array([[3.0, 2.0], [4.0, 0.0]])


def test_inverted_softmax_by_hand():
    """Text 0 sums to 8 + 16 = 24, text 1 to 4 + 1 = 5: image 0 has 8/24 and 4/5, and swaps; image
    1 has 16/24 and 1/5. For T2I image 0 sums to 12, image 1 to 17: text 0 has 8/12 and 16/17, text
    1 has 4/12 and 1/17, nothing moves.
    """
    result = rerank(HUB, method="inverted_softmax", temperature=TEMPERATURE)
    assert result.i2t.tolist() == [[2, 3], [4, 0]]
    assert result.t2i.tolist() == HUB.tolist()


def test_dual_softmax_by_hand():
    """Image 0 has 3 * 8/24 = 1 and 2 * 4/5 = 1.6, image 1 has 4 * 16/24 and 0. The bank of the
    inverted softmax would not do: with text 1 at 2.5 for image 1, image 0 has 3 * 8/24 = 1 and
    2 * 4/(4 + 5.66) = 0.83, and keeps its order, while the inverted softmax alone has 0.33, 0.41.
    """
    result = rerank(HUB, method="dual_softmax", temperature=TEMPERATURE)
    assert result.i2t.tolist() == [[2, 3], [4, 0]]
    sim = np.array([[3.0, 2.0], [4.0, 2.5]])
    result = rerank(sim, method="dual_softmax", temperature=TEMPERATURE)
    assert result.i2t.tolist() == sim.tolist()
    result = rerank(sim, method="inverted_softmax", temperature=TEMPERATURE)
    assert result.i2t.tolist()[0] == [2, 3]


def test_csls_and_nnn_by_hand():
    """Two neighbours: r of text 0 is (3 + 4) / 2 = 3.5, of text 1 (2 + 0) / 2 = 1. CSLS of image 0
    without its own r: 6 - 3.5 = 2.5 and 4 - 1 = 3, a swap; of image 1: 4.5 and -1. With one
    neighbour r is 4 and 2: 6 - 4 and 4 - 2 are equal, the order stays. NNN with one neighbour and
    alpha 0.75: 3 - 3 = 0 and 2 - 1.5 = 0.5, a swap; with alpha 0.25: 2 and 1.5.
    """
    swapped = [[2, 3], [4, 0]]
    assert rerank(HUB, method="csls", neighbors=2).i2t.tolist() == swapped
    assert rerank(HUB, method="csls", neighbors=1).i2t.tolist() == HUB.tolist()
    assert rerank(HUB, method="nnn", neighbors=1).i2t.tolist() == swapped
    assert rerank(HUB, method="nnn", neighbors=1, alpha=0.25).i2t.tolist() == HUB.tolist()


def test_qb_norm_by_hand():
    """The bank's one image likes text 2 best, so text 0, the best of both images, is not in the
    activation set and nothing moves, though the inverted softmax over the bank has 8/16 and 4/1
    for image 0. With the two best of the bank's image active, text 0 is.
    """
    sim = np.array([[3.0, 2.0, -9.0], [4.0, 0.5, -9.0]])
    options = {"temperature": TEMPERATURE, "bank_i2t": np.array([[4.0, 0.0, 5.0]])}
    assert rerank(sim, method="qb_norm", **options).i2t.tolist() == sim.tolist()
    wanted = [[2, 3, -9], [0.5, 4, -9]]
    assert rerank(sim, method="qb_norm", activation_k=2, **options).i2t.tolist() == wanted
    assert rerank(sim, method="inverted_softmax", **options).i2t.tolist() == wanted


def test_k_reciprocal_by_hand():
    """k1 = k2 = 1: image 0 and its best text 0 choose each other, so V of image 0 is 1 at text 0.
    Texts 0 and 1 choose each other too, text 2 has nobody: V of text 1 is above 0 at text 0, that
    of text 2 is 0 there. By Jaccard distance alone, image 0 now prefers text 1 to text 2. Image 1
    likewise has 1 at text 1, and text 0 passes text 2.
    """
    sim = np.array([[0.9, 0.5, 0.6], [0.1, 0.8, 0.2]])
    embeddings = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    options = {"k1": 1, "k2": 1, "text_embeddings": embeddings}
    result = rerank(sim, method="k_reciprocal", initial_weight=0, **options)
    assert result.i2t.tolist() == [[0.9, 0.6, 0.5], [0.2, 0.8, 0.1]]
    result = rerank(sim, method="k_reciprocal", initial_weight=1, **options)
    assert result.i2t.tolist() == sim.tolist()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_types_stay(name, dtype, device):
    """Halves are reordered by float32 values: as the same numbers in float32 are."""
    sim = torch.from_numpy(draw(5, (7, 11))[0]).to(dtype)
    banks = {"bank_i2t": sim[:3], "bank_t2i": sim[:, :4]} if name in BANKED else {}
    on_device = sim.T.contiguous().T.to(device).requires_grad_()
    result = rerank(on_device, method=name, **banks)
    wanted = rerank(sim if dtype == torch.float64 else sim.float(), method=name, **banks)
    for matrix, expected in zip(result, wanted, strict=True):
        assert matrix.dtype == dtype and matrix.shape == sim.shape
        assert matrix.device.type == device and not matrix.requires_grad
        assert torch.equal(matrix.cpu(), expected.to(dtype))
    if dtype != torch.bfloat16:
        same = rerank(sim.numpy(), method=name, **{k: v.numpy() for k, v in banks.items()})
        np.testing.assert_array_equal(same.i2t, result.i2t.cpu().numpy())
        np.testing.assert_array_equal(same.t2i, result.t2i.cpu().numpy())


@pytest.mark.parametrize("name", BANKED)
def test_a_bank_makes_queries_independent(name):
    """Each query alone gives what it gives among the others: it is not transductive."""
    sim, bank_i2t, bank_t2i = draw(1, (6, 8), (9, 8), (6, 9))
    banks = {"bank_i2t": bank_i2t, "bank_t2i": bank_t2i}
    whole = rerank(sim, method=name, **banks)
    assert not whole.transductive
    for image in range(6):
        alone = rerank(sim[image : image + 1], method=name, bank_i2t=bank_i2t)
        np.testing.assert_array_equal(alone.i2t[0], whole.i2t[image])
    for text in range(8):
        alone = rerank(sim[:, text : text + 1], method=name, bank_t2i=bank_t2i)
        np.testing.assert_array_equal(alone.t2i[:, 0], whole.t2i[:, text])


def test_a_small_temperature_does_not_overflow():
    (sim,) = draw(2, (6, 8))
    result = rerank((100 * sim).astype(np.float32), method="inverted_softmax", temperature=1e-3)
    rank = (sim[:, None, :] < sim[None, :, :]).sum(axis=1)  # of an image for each text
    best = result.i2t.argmax(axis=1)
    assert all(rank[i, t] == rank[i].min() for i, t in enumerate(best))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "csls", "alpha": 1}, TypeError, "'csls' has no option 'alpha'; it has nei"),
        ({"method": "csls", "k": 20}, TypeError, "'csls' has no option 'k'"),
        ({"method": "none", "alpha": 5}, TypeError, "'none' has no option 'alpha'; it has none"),
        ({"misspelled": None}, TypeError, "'bidirectional' has no option 'misspelled'"),
        ({"method": "csls", "text_embeddings": np.eye(3)}, TypeError, "no option 'text_emb"),
        ({"neighbors": 5}, TypeError, "'bidirectional' has no option 'neighbors'; it has k, rev"),
        ({"method": "bidirectional", "bank_i2t": np.eye(3)}, TypeError, "no option 'bank_i2t'"),
        ({"method": "csls", "neighbors": 0}, ValueError, "neighbors must be an integer .* got 0"),
        ({"method": "nnn", "neighbors": True}, ValueError, "neighbors must be an int.* got True"),
        ({"method": "nnn", "alpha": -1}, ValueError, "alpha must be a number at least 0, got -1"),
        ({"method": "nnn", "alpha": "1"}, ValueError, "alpha must be a number .* got '1'"),
        ({"method": "qb_norm", "activation_k": 0}, ValueError, "activation_k must be .* got 0"),
        ({"method": "qb_norm", "temperature": 0}, ValueError, "temperature must be .* above 0"),
        ({"method": "dual_softmax", "temperature": np.nan}, ValueError, "temperature .* got nan"),
        ({"method": "inverted_softmax", "temperature": -1}, ValueError, "temperature .* got -1"),
        ({"method": "k_reciprocal", "k1": 0}, ValueError, "k1 must be"),
        ({"method": "k_reciprocal", "k2": 0}, ValueError, "k2 must be"),
        (
            {"method": "k_reciprocal", "initial_weight": 1.5},
            ValueError,
            "initial_weight must be a number at least 0 and at most 1, got 1.5",
        ),
        (
            {"method": "k_reciprocal", "image_embeddings": np.ones((3, 4))},
            ValueError,
            r"image_embeddings has shape \(3, 4\), sim has 2 images",
        ),
        (
            {"method": "nnn", "bank_i2t": np.ones((3, 4))},
            ValueError,
            r"bank_i2t has shape \(3, 4\), sim has 3 texts: .* one column for each",
        ),
        (
            {"method": "nnn", "bank_t2i": np.ones((3, 4))},
            ValueError,
            r"bank_t2i has shape \(3, 4\), sim has 2 images: .* one row for each",
        ),
        ({"method": "nnn", "bank_t2i": np.ones((2, 0))}, ValueError, "bank_t2i is empty"),
        (
            {"method": "nnn", "bank_t2i": np.array([[1.0], [np.inf]])},
            ValueError,
            "bank_t2i holds inf at row 1, column 0",
        ),
        ({"method": "nnn", "bank_t2i": np.ones((2, 1), int)}, TypeError, "bank_t2i must hold"),
    ],
)  # fmt: skip
def test_errors_name_option_and_method(options, error, message):
    with pytest.raises(error, match=message):
        rerank(np.ones((2, 3)), **options)
