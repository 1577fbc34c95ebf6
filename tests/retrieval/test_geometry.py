"""Distances of vectors, held to loops over pairs and to scipy."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, PooledSimilarity
from ascl_plugin.fusion.reference import fuse, multi_head
from ascl_plugin.retrieval import geometry
from ascl_plugin.retrieval.geometry import differences, own_distances, positives, siblings


def vectors(count, seed=0, dim=5):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=generator), dim=1)


def by_hand(pairs):
    """The five numbers of a list of pairs of vectors, one after the other."""
    d = [math.dist(x.tolist(), y.tolist()) for x, y in pairs]
    mean = sum(d) / len(d)
    return (
        len(d),
        mean,
        sum((x - mean) ** 2 for x in d) / len(d),
        sum(x**2 for x in d) / len(d),
        math.log(sum(math.exp(-2 * x**2) for x in d) / len(d)),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.lists(st.integers(0, 8), min_size=2, max_size=12), st.integers(1, 5))
def test_every_number_is_that_of_a_loop_over_pairs(images, owners, tile):
    owners = [owner % images for owner in owners]
    v, w, index = vectors(images), vectors(len(owners), 1), torch.tensor(owners)
    of_one = [(v[owner], w[t]) for t, owner in enumerate(owners)]
    with mock.patch.object(geometry, "_PAIRS", tile):
        close, found = positives(v, w, index), siblings(w, index)
    assert close == pytest.approx(by_hand(of_one), abs=1e-7)
    couples = list(itertools.combinations(range(len(owners)), 2))
    same = [(w[a], w[b]) for a, b in couples if owners[a] == owners[b]]
    other = [(w[a], w[b]) for a, b in couples if owners[a] != owners[b]]
    assert (found is None) if not same else found == pytest.approx(by_hand(same), abs=1e-7)
    if other:
        assert differences(w, index, tile) == pytest.approx(by_hand(other), abs=1e-7)
    couples = itertools.combinations(v, 2)
    assert differences(v, tile=tile) == pytest.approx(by_hand(list(couples)), abs=1e-7)


@pytest.mark.parametrize("attention", ["projected", "parameter-free"])
def test_own_vectors_are_those_of_the_equations(attention):
    torch.manual_seed(0)
    head = CrossModalFusion(dim=8, num_heads=2, local_weight=0.8, attention=attention)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    images = ImageFeatures(torch.randn(2, 3, 8), None, torch.randn(2, 8))
    mask = torch.arange(4) < torch.tensor([4, 2, 3])[:, None]
    texts = TextFeatures(torch.randn(3, 4, 8), mask)
    owners = torch.tensor([1, 0, 1])
    distances = []
    for t, owner in enumerate(owners.tolist()):
        v, w = images.regions[owner], texts.words[t][mask[t]]
        w_g = head.text_global(multi_head(head.image_to_text, v, w).mean(0))
        v_1 = head.image_global(multi_head(head.text_to_image, w, v).mean(0))
        v_g = fuse(head, v_1, head.pooled_global(images.pooled[owner]))
        distances.append((normalize(v_g, dim=0), normalize(w_g, dim=0)))
    found = own_distances(SimpleNamespace(fusion=head), images, texts, owners)
    with torch.no_grad():
        assert found == pytest.approx(by_hand(distances), abs=1e-5)
    assert head.local_weight == 0.8


def test_a_model_without_attention_has_no_vectors_of_a_pair():
    model = SimpleNamespace(fusion=PooledSimilarity())
    images, texts = ImageFeatures(torch.ones(1, 2, 8)), TextFeatures(torch.ones(1, 2, 8))
    assert own_distances(model, images, texts, torch.tensor([0])) is None


def test_what_does_not_fit_is_named():
    v, w, index = vectors(2), vectors(3, 1), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="caption 1 points at image 2, there are images 0 to 1"):
        positives(v, w, torch.tensor([0, 2, 1]))
    with pytest.raises(ValueError, match=r"images of shape \(2, 4\) and texts of shape \(3, 5\)"):
        positives(v[:, :4], w, index)
    with pytest.raises(ValueError, match=r"texts have shape \(3, 5\) for indices of shape \(2,\)"):
        siblings(w, index[:2])
    with pytest.raises(ValueError, match="3 vectors, and no two of them are of different groups"):
        differences(w, torch.zeros(3, dtype=torch.long))
