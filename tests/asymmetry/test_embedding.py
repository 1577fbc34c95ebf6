"""Asymmetry-I negatives: each noise, the padding mask, and the seeds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.asymmetry import NEGATIVES, generate_negatives
from ascl_plugin.asymmetry.captions.text_edits import NEGATIVE_EDITS
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion

KINDS = [kind for kind in NEGATIVES if kind not in (*NEGATIVE_EDITS, "none")]
NOISES = [kind for kind in KINDS if kind != "mixture"]


def texts_of(*lengths, width=6, longest=None):
    """Texts of these lengths; every element its own number, padding -99."""
    longest = longest or max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    words = torch.arange(1.0, len(lengths) * longest * width + 1).view(-1, longest, width)
    return TextFeatures(words.masked_fill(~mask[..., None], -99.0), mask)


def one(words, seed, kind, strength=None):
    """The negative of a single text without padding."""
    return generate_negatives(
        TextFeatures(words[None]), torch.tensor([seed]), kind, strength
    ).words[0]


@pytest.mark.parametrize("strength", [0.25, 2.0])
def test_gaussian_has_the_stated_size(strength):
    """40,000 draws: the noise's deviation is known to 1 %; words of RMS 3 make it 3 * strength."""
    words = torch.full((200, 200), 3.0)
    noise = one(words, 0, "gaussian", strength) - words
    assert noise.std().item() == pytest.approx(3 * strength, rel=0.02)
    assert abs(noise.mean().item()) < 0.05 * strength * 3


def test_shuffle_keeps_the_words_and_every_order_occurs():
    words = torch.arange(6.0).view(3, 2)
    orders = {tuple(one(words, seed, "shuffle")[:, 0].tolist()) for seed in range(60)}
    assert orders == {(0, 2, 4), (0, 4, 2), (2, 0, 4), (2, 4, 0), (4, 0, 2), (4, 2, 0)}


@pytest.mark.parametrize(
    ("length", "strength", "gone"), [(10, 0.2, 2), (10, 0.5, 5), (3, 0.2, 1), (1, 0.2, 1)]
)
def test_cutoffs_zero_whole_words_or_whole_features(length, strength, gone):
    """The stated share, rounded, at least one; the rest is as it was."""
    words = torch.rand(length, 7) + 1
    rows = one(words, 3, "token_cutoff", strength)
    zero = (rows == 0).all(1)
    assert zero.sum() == gone and torch.equal(rows[~zero], words[~zero])
    words = torch.rand(7, length) + 1
    columns = one(words, 3, "feature_cutoff", strength)
    zero = (columns == 0).all(0)
    assert zero.sum() == gone and torch.equal(columns[:, ~zero], words[:, ~zero])


def test_dropout_zeroes_elements_and_leaves_the_rest_its_size():
    """10,000 draws of p = .3: 3,000 zeros, give or take 4 deviations of 46."""
    words = torch.rand(100, 100) + 1
    dropped = one(words, 0, "dropout", 0.3)
    zero = dropped == 0
    assert abs(int(zero.sum()) - 3000) < 184
    assert torch.equal(dropped[~zero], words[~zero])


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 2**62))
def test_padding_is_never_touched_nor_shuffled_in(kind, lengths, seed):
    texts = texts_of(*lengths, longest=6)
    seeds = torch.tensor([seed + n for n in range(len(lengths))])
    negative = generate_negatives(texts, seeds, kind)
    assert negative.mask is texts.mask and negative.words.shape == texts.words.shape
    assert (negative.words[~texts.mask] == -99).all()
    if kind in ("shuffle", "token_cutoff", "feature_cutoff", "dropout"):
        assert not (negative.words[texts.mask] == -99).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_texts_noise_is_its_own(kind):
    """Alone and without padding, or in a batch of longer texts, padded at either end: the same."""
    seeds = torch.tensor([7, 8, 9])
    texts = texts_of(4, 2, 3, longest=7)
    for mask in (texts.mask, texts.mask.flip(1)):
        words = torch.full_like(texts.words, -99.0)
        words[mask] = texts.words[texts.mask]
        together = generate_negatives(TextFeatures(words, mask), seeds, kind)
        for n, length in enumerate((4, 2, 3)):
            alone = one(texts.words[n, :length], int(seeds[n]), kind)
            assert torch.equal(together.words[n, mask[n]], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(kind):
    texts = texts_of(5, 5, 5)
    seeds = torch.tensor([1, 1, 2])
    texts = TextFeatures(texts.words[:1].expand(3, -1, -1), texts.mask)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = generate_negatives(texts, seeds, kind).words
    assert torch.equal(torch.get_rng_state(), before)  # global chance is left as it was
    torch.manual_seed(1)
    assert torch.equal(generate_negatives(texts, seeds, kind).words, first)
    assert torch.equal(first[0], first[1])
    assert any(not torch.equal(one(texts.words[0], seed, kind), first[0]) for seed in range(10, 14))


def test_mixture_draws_each_of_the_five_a_sample():
    """Told apart by what is left of six words (1, 2, ... 36) of six features."""
    words = torch.arange(1.0, 37).view(6, 6)

    def kind_of(noisy):
        zero = noisy == 0
        if torch.equal(noisy.sort(0).values, words):
            return "shuffle"
        if not zero.any():
            return "gaussian"
        if torch.equal(zero, zero.all(1, keepdim=True).expand_as(zero)):
            return "token_cutoff"
        if torch.equal(zero, zero.all(0, keepdim=True).expand_as(zero)):
            return "feature_cutoff"
        return "dropout"

    batch = TextFeatures(words.expand(400, -1, -1))
    noisy = generate_negatives(batch, torch.arange(400), "mixture").words
    counts = {kind: 0 for kind in NOISES}
    for sample in noisy:
        counts[kind_of(sample)] += 1
    assert all(48 <= count <= 112 for count in counts.values()), counts  # 80, 4 deviations of 8


def test_for_the_fusion_head_a_shuffled_caption_is_the_caption():
    """As the module says: to a scorer of word sets, shuffling changes nothing."""
    torch.manual_seed(0)
    head = CrossModalFusion(8, 2).double()
    images = ImageFeatures(torch.randn(2, 4, 8).double(), None, torch.randn(2, 8).double())
    texts = TextFeatures(
        torch.randn(3, 5, 8).double(), torch.arange(5) < torch.tensor([[5], [2], [4]])
    )
    shuffled = generate_negatives(texts, torch.tensor([1, 2, 3]), "shuffle")
    assert not torch.equal(shuffled.words, texts.words)
    torch.testing.assert_close(head(images, shuffled), head(images, texts))
    other = generate_negatives(texts, torch.tensor([1, 2, 3]), "gaussian")
    assert (head(images, other) - head(images, texts)).abs().min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_words_and_the_given_words_stay(kind):
    texts = texts_of(4, 3)
    words = texts.words.clone().requires_grad_()
    before = words.detach().clone()
    negative = generate_negatives(TextFeatures(words, texts.mask), torch.tensor([1, 2]), kind)
    negative.words[texts.mask].sum().backward()
    assert torch.equal(words.detach(), before)
    assert words.grad[texts.mask].abs().sum() > 0 and (words.grad[~texts.mask] == 0).all()


def test_errors_name_what_was_got():
    texts = texts_of(2, 3)
    for kind in ("none", "noise"):
        with pytest.raises(ValueError, match=f"gaussian, .*mixture, got '{kind}'"):
            generate_negatives(texts, torch.tensor([1, 2]), kind)
    with pytest.raises(ValueError, match=r"one seed a text, \(2,\), got \(3,\)"):
        generate_negatives(texts, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="needs at least one text, got 0"):
        generate_negatives(texts[:0], torch.tensor([], dtype=torch.int64))


def test_a_pooled_feature_moves_as_the_mean_word_does():
    """Feature cutoff of half of 2 features: one column of words (2, 4), mean 3, becomes 0."""
    words = torch.tensor([[[2.0, 2], [4, 4], [9, 9]]])
    texts = TextFeatures(words, torch.tensor([[True, True, False]]), torch.tensor([[10.0, 10]]))
    noisy = generate_negatives(texts, torch.tensor([0]), "feature_cutoff", 0.5)
    assert sorted(noisy.pooled[0].tolist()) == [7, 10]
