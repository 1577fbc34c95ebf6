"""The two small encoders: shapes, tokens, and independence of what else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascl_plugin import CrossModalFusion, ImageFeatures, TextFeatures
from ascl_plugin.retrieval.encoders import GridEncoder, WordTransformer, words_of
from ascl_plugin.retrieval.inputs import TextInputs


def test_grid_regions_are_the_cells_row_by_row():
    """Where in the picture the gradient of each region lies: further down, further right."""
    torch.manual_seed(0)
    encoder = GridEncoder(width=64, grid=3)
    assert (encoder.region_dim, encoder.pooled_dim, encoder.frozen) == (64, 64, False)
    pixels = torch.randn(1, 3, 48, 48, requires_grad=True)
    features = encoder(pixels)
    assert features.regions.shape == (1, 9, 64) and features.mask is None
    torch.testing.assert_close(features.pooled, features.regions.mean(1))
    across, down = torch.zeros(3, 3), torch.zeros(3, 3)
    for cell in range(9):
        (gradient,) = torch.autograd.grad(
            features.regions[0, cell].square().sum(), pixels, retain_graph=True
        )
        energy = gradient[0].square().sum(0) / gradient.square().sum()
        across[cell // 3, cell % 3] = (energy.sum(0) * torch.arange(48)).sum()
        down[cell // 3, cell % 3] = (energy.sum(1) * torch.arange(48)).sum()
    assert (across.diff(dim=1) > 3).all() and (down.diff(dim=0) > 3).all()


def test_a_width_that_normalisation_cannot_share_out_is_refused():
    with pytest.raises(ValueError, match="multiple of 8, got 12"):
        GridEncoder(12)


def test_an_image_alone_is_what_it_is_in_a_batch_in_training_too():
    torch.manual_seed(0)
    encoder = GridEncoder(16, 2).train()
    pixels = torch.randn(3, 3, 32, 32)
    together = encoder(pixels).regions
    torch.testing.assert_close(encoder(pixels[1:2]).regions, together[1:2], rtol=0, atol=1e-5)


def test_preprocess_gives_pixels_between_minus_one_and_one():
    Image = pytest.importorskip("PIL.Image", reason="extra `recipes`")
    encoder = GridEncoder(16, 2)
    white = encoder.preprocess(Image.new("RGB", (70, 50), (255, 0, 51)))
    assert white.shape == (3, 32, 32) and white.dtype == torch.float32
    assert white[0].unique().item() == 1 and white[1].unique().item() == -1
    assert white[2, 0, 0].item() == pytest.approx(-0.6)
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    exact = encoder.preprocess(Image.fromarray(pixels))
    np.testing.assert_allclose(exact.permute(1, 2, 0), pixels / 127.5 - 1, atol=1e-6)


def test_words_of_a_text():
    assert words_of("A dog's  red-ish car, 2 KITES_fly. Über!") == [
        "a", "dog's", "red", "ish", "car", "2", "kites", "fly", "über",
    ]  # fmt: skip
    assert words_of("...") == []


def test_vocabulary_is_by_frequency_then_alphabet():
    """b three times, a and c twice, d once."""
    captions = ["b c a", "B a, b", "c d"]
    assert WordTransformer.vocabulary(captions) == ["b", "a", "c", "d"]
    assert WordTransformer.vocabulary(captions, minimum=2) == ["b", "a", "c"]


def test_tokenize_pads_cuts_and_knows_the_unknown():
    """0 is padding, 1 unknown, then the vocabulary from 2; a text without a word is one unknown."""
    encoder = WordTransformer(["b", "a"], width=8, max_words=3)
    tokens = encoder.tokenize(["a b a b", "b zebra", "?!"])
    assert tokens["input_ids"].tolist() == [[3, 2, 3], [2, 1, 0], [1, 0, 0]]
    assert tokens["attention_mask"].tolist() == [
        [True, True, True], [True, True, False], [True, False, False],
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_a_text_alone_is_what_it_is_beside_longer_ones(training):
    torch.manual_seed(0)
    encoder = WordTransformer(list("abcdef"), width=8, layers=2).train(training)
    texts = ["a b", "c d e f a b", "f"]
    with torch.set_grad_enabled(training):  # eval without gradients has a path of its own in torch
        together = encoder(**encoder.tokenize(texts))
        assert together.words.shape == (3, 6, 8) and together.mask.sum(1).tolist() == [2, 6, 1]
        for row, text in enumerate(texts):
            alone = encoder(**encoder.tokenize([text])).words[0]
            torch.testing.assert_close(together.words[row, : len(alone)], alone, rtol=0, atol=1e-5)


def test_words_know_their_neighbours_and_places():
    torch.manual_seed(0)
    encoder = WordTransformer(list("abc"), width=8).eval()
    words = encoder(**encoder.tokenize(["a b", "a c", "b a"])).words
    assert (words[0, 0] - words[1, 0]).abs().max() > 1e-3
    assert (words[0].sum(0) - words[2].sum(0)).abs().max() > 1e-4


def test_cut_texts_are_counted():
    """Punctuation is no word: the first text has three words, the second four."""
    encoder = WordTransformer(["a"], width=8, max_words=3)
    texts = ["A red, red!", "a red red car", ""]
    assert encoder.count_cut(texts) == 1
    assert encoder.tokenize(texts)["attention_mask"].sum(1).tolist() == [3, 3, 1]
    assert TextInputs(encoder).count_cut(texts) == 1
    assert TextInputs(torch.nn.Identity()).count_cut(texts) == 0


class Wordless(WordTransformer):
    """Frozen, and without a word for what is no letter, as BERT less its special tokens."""

    frozen = True

    def tokenize(self, texts):
        tokens = super().tokenize(texts)
        real = tokens["input_ids"] > 1
        return {**tokens, "attention_mask": real}

    def fingerprint(self):
        return {"encoder": "wordless"}


def test_texts_without_a_word_resemble_nothing(tmp_path):
    """Out of the cache as out of the encoder, also where no text of a batch has one."""
    torch.manual_seed(0)
    encoder = Wordless(["a"], width=8).eval()
    texts = TextInputs(encoder, tmp_path)
    texts.prepare(["a", "\u200b", "!?"], 2, progress=False)
    head = CrossModalFusion(8, 2)
    images = ImageFeatures(torch.randn(2, 3, 8), None, torch.randn(2, 8))
    for batch, zero in ((["\u200b", "!?"], [True, True]), (["a", "!?"], [False, True])):
        inputs = texts(batch)
        assert inputs["words"].shape == (2, 1, 8)
        assert inputs["word_mask"].any(1).tolist() == [not x for x in zero]
        sim = head(images, TextFeatures(inputs["words"], inputs["word_mask"]))
        assert (sim == 0).all(0).tolist() == zero
