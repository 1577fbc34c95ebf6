"""Tiles, groups and prepared features change what a score costs, never a score."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, factored, tiling

KINDS = ("projected", "parameter-free")


@pytest.fixture(scope="module")
def make(draw):
    """A function that gives a head and features: 5 images, 9 texts of up to 7 words."""
    sizes = {"images": 5, "regions": 3, "texts": 9, "words": 7, "dim": 8}
    return lambda attention, **options: draw(**sizes | {"attention": attention} | options)


def test_short_of_memory_less_is_kept(make):
    head, v, w = make("projected", images=8, texts=16)

    def kept(limit):
        sizes = []

        def pack(x):
            sizes.append(x.nbytes)
            return x

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(factored, "default_kept", lambda device: limit)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                pair = sum(tiling.pair_bytes(head, 3, 7, 8))
                factored.score_parts(head, v, w, memory=16 * pair)
        return sum(sizes)

    assert kept(0) < kept(10**12) / 2


def test_tiles_on_a_gpu_take_what_torch_keeps_for_reuse_as_free(monkeypatch):
    """Of 80 bytes 16 are free and 40 are torch's, of which 8 are in use: 16 + 32 can be had."""
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 40)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 8)
    assert (tiling.default_memory(gpu), tiling.default_kept(gpu)) == (6, 24)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(1, 20))
def test_groups_hold_every_text_once_without_needless_padding(lengths, size):
    mask = torch.arange(12) < torch.tensor(lengths)[:, None]
    words = torch.arange(len(lengths))[:, None, None] * torch.ones(1, 12, 2)
    seen = []
    for chosen, part in tiling.groups(TextFeatures(words, mask), size):
        assert 1 <= len(chosen) == len(part) <= size
        assert part.words[:, 0, 0].tolist() == chosen.tolist()
        longest = max(max(lengths[i] for i in chosen), 1)
        assert part.words.shape[1] == longest
        full = all(lengths[i] == longest for i in chosen)
        assert (part.mask is None) == full
        seen += chosen.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_many_texts_of_a_length_are_grouped_by_length():
    """40 of length 3, 30 of 5, two of 4, in groups of at most 16: no group mixes 3 and 5."""
    lengths = torch.tensor([3, 5] * 30 + [3] * 10 + [4] * 2)
    texts = TextFeatures(torch.zeros(72, 6, 2), torch.arange(6) < lengths[:, None])
    found = [sorted(set(lengths[c].tolist())) for c, _ in tiling.groups(texts, 16)]
    assert found == [[3]] * 3 + [[4]] + [[5]] * 2


@torch.no_grad()
def test_without_gradients_no_second_copy_of_the_texts_is_made():
    """A group is cut when it is asked for: it shows what was written until then."""
    texts = TextFeatures(torch.zeros(40, 6, 2), torch.arange(6) < torch.arange(1, 41)[:, None] % 6)
    groups = tiling.groups(texts, 4)
    next(groups)
    texts.words.fill_(1.0)
    assert all((part.words == 1).all() for _, part in groups)


def test_padding_in_the_middle_is_masked_not_cut():
    mask = torch.tensor([[True, False, True, False]])
    ((_, part),) = tiling.groups(TextFeatures(torch.zeros(1, 4, 2), mask), 8)
    assert part.mask.tolist() == [[True, False, True]]


@settings(deadline=None, max_examples=50)
@given(*[st.integers(1, 10**6)] * 2, st.integers(1, 500), st.integers(1, 500))
def test_a_tile_fits_its_memory(memory, per_pair, images, texts):
    height, width = tiling.tile_shape(memory, per_pair, images, texts)
    assert 1 <= height <= images and 1 <= width <= texts
    assert height * width <= max(1, memory // per_pair)


@pytest.mark.parametrize("attention", KINDS)
def test_prepared_features_score_as_features(make, attention):
    head, v, w = make(attention)
    images, texts = head.prepare_images(v), head.prepare_texts(w)
    expected = head(v, w, backend="reference")
    for a, b in ((images, texts), (v, texts), (images, w)):
        torch.testing.assert_close(head(a, b), expected, rtol=0, atol=1e-10)
    rows, columns = torch.tensor([3, 1]), slice(2, 6)
    torch.testing.assert_close(
        head(images[rows], texts[columns].to("cpu")), expected[rows][:, columns],
        rtol=0, atol=1e-10,
    )  # fmt: skip
    parts = images.split(2)
    assert [len(p) for p in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat([head(p, texts) for p in parts]), expected)
    assert images.nbytes == sum(p.nbytes for p in parts)
    with pytest.raises(ValueError, match="reference backend takes features"):
        head(images, w, backend="reference")
    other = CrossModalFusion(16, 2, attention=attention).double()
    with pytest.raises(ValueError, match="dim 16 got prepared features of width 8"):
        other(images, texts)


@pytest.mark.parametrize("attention", KINDS)
def test_the_gradient_of_prepared_features_reaches_what_they_were_made_of(make, attention):
    head, v, w = make(attention)
    regions = v.regions.clone().requires_grad_()
    images = head.prepare_images(ImageFeatures(regions, v.mask, v.pooled))
    head(images, w[:4]).sum().backward(retain_graph=True)
    head(images, w[4:]).sum().backward()
    together = v.regions.clone().requires_grad_()
    head(ImageFeatures(together, v.mask, v.pooled), w).sum().backward()
    torch.testing.assert_close(regions.grad, together.grad)


@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_gate_bias_decides_which_leads_at_the_start(make, bias):
    """z = 0 leaves V_g to the pooled feature alone, z = 1 to the attended regions alone."""
    _, v, w = make("parameter-free")
    head = CrossModalFusion(8, 2, attention="parameter-free", gate_bias=bias).double()
    _, expected = head.score_parts(v, w)
    other = ImageFeatures(v.regions, v.mask, torch.randn_like(v.pooled))
    same = torch.equal(head.score_parts(other, w)[1], expected)
    assert same == (bias > 0)


@pytest.mark.parametrize("attention", ["projected", "parameter-free"])
def test_scores_are_those_of_one_thread(draw, cores, attention, monkeypatch):
    head, images, texts = draw(images=6, regions=3, texts=20, dim=8, attention=attention)
    seen = set()
    tile = factored.score_tile
    monkeypatch.setattr(
        factored, "score_tile", lambda *a, **o: seen.add(threading.get_ident()) or tile(*a, **o)
    )

    def score(count, memory):
        seen.clear()
        cores(count)
        with torch.no_grad():
            return torch.stack(factored.score_parts(head, images, texts, memory=memory))

    expected = score(1, 5000)
    assert seen == {threading.get_ident()}
    torch.testing.assert_close(score(3, 5000), expected, rtol=0, atol=1e-12)
    assert threading.get_ident() not in seen
    score(3, 10**9)  # one tile: not worth a thread
    assert seen == {threading.get_ident()}
