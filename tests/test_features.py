"""The two dataclasses that flow between rooms: their border, and their joining."""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate, whole_texts


def test_masks_and_pooled_follow_the_items():
    mask = torch.tensor([[True, False], [True, True]])
    images = ImageFeatures(torch.arange(12.0).view(2, 2, 3), mask, torch.tensor([[1.0], [2.0]]))
    picked = images[torch.tensor([1, 0, 1])]
    assert len(images) == 2 and len(picked) == 3
    assert picked.regions[:, 0, 0].tolist() == [6.0, 0.0, 6.0]
    assert picked.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert picked.pooled.flatten().tolist() == [2.0, 1.0, 2.0]
    first = images[:1]
    assert len(first) == 1 and first.mask.tolist() == [[True, False]]


def test_what_is_not_there_stays_so():
    texts = TextFeatures(torch.zeros(2, 3, 4))
    assert texts[:1].mask is None and texts.to("cpu").mask is None
    images = ImageFeatures(torch.zeros(2, 3, 4)).to("meta")
    assert images.regions.device.type == "meta" and images.mask is None and images.pooled is None


@pytest.mark.parametrize("owner", [ImageFeatures, TextFeatures])
def test_shapes_that_do_not_fit_are_named(owner):
    name = "regions" if owner is ImageFeatures else "words"
    with pytest.raises(ValueError, match=rf"{owner.__name__}: {name} must be .* \(2, 3\)"):
        owner(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=rf"{name} has [KL]=0; pass one masked"):
        owner(torch.zeros(2, 0, 3), torch.ones(2, 0, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\), .* need \(2, 3\)"):
        owner(torch.zeros(2, 3, 5), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"must be bool .* got torch.float32"):
        owner(torch.zeros(2, 3, 5), torch.ones(2, 3))


@pytest.mark.parametrize("owner", [ImageFeatures, TextFeatures])
def test_integer_masks_of_a_tokenizer_are_taken(owner):
    found = owner(torch.zeros(1, 3, 5), torch.tensor([[1, 2, 0]]))
    assert found.mask.tolist() == [[True, True, False]]


@pytest.mark.parametrize("owner", [ImageFeatures, TextFeatures])
def test_arrays_are_refused(owner):
    name = "regions" if owner is ImageFeatures else "words"
    with pytest.raises(TypeError, match=rf"{name} must be Tensor, got ndarray of shape \(2, 3"):
        owner(torch.zeros(2, 3, 4).numpy())
    with pytest.raises(TypeError, match="mask must be Tensor, got list"):
        owner(torch.zeros(1, 1, 4), [[True]])


def test_pooled_of_another_number_of_items_is_refused():
    for owner, items in ((ImageFeatures, "images"), (TextFeatures, "texts")):
        with pytest.raises(ValueError, match=f"pooled has 3 rows for 2 {items}"):
            owner(torch.zeros(2, 3, 5), None, torch.zeros(3, 5))
        with pytest.raises(ValueError, match=rf"must be \({items}, width\), got shape \(2, 1, 5\)"):
            owner(torch.zeros(2, 3, 5), None, torch.zeros(2, 1, 5))


def test_the_mean_word_stands_in_for_a_whole_text():
    """Words (1, 2), (3, 4) and padding: (2, 3); a pooled feature goes before it."""
    words, mask = torch.tensor([[[1.0, 2], [3, 4], [9, 9]]]), torch.tensor([[True, True, False]])
    assert whole_texts(TextFeatures(words, mask)).tolist() == [[2, 3]]
    assert whole_texts(TextFeatures(words, mask, torch.tensor([[7.0, 7]]))).tolist() == [[7, 7]]


def test_pooled_texts_are_joined_if_all_parts_have_them():
    parts = [TextFeatures(torch.zeros(1, n, 2), None, torch.full((1, 2), n)) for n in (1, 2)]
    assert concatenate(parts).pooled[:, 0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="1 of 2 parts have pooled"):
        concatenate([parts[0], TextFeatures(torch.zeros(1, 1, 2))])


def test_concatenate_pads_to_the_longest_and_marks_the_padding():
    """One text of 1 word (all 1) and one of 3 words (all 2), of which the last is padding."""
    short = TextFeatures(torch.ones(1, 1, 2))
    long = TextFeatures(torch.full((1, 3, 2), 2.0), torch.tensor([[True, True, False]]))
    joined = concatenate([short, long])
    assert joined.words[..., 0].tolist() == [[1, 0, 0], [2, 2, 2]]
    assert joined.mask.tolist() == [[True, False, False], [True, True, False]]


def test_concatenate_makes_no_mask_where_none_is_needed():
    parts = [ImageFeatures(torch.full((1, 2, 3), float(n)), None, torch.ones(1, 3) * n) for n in
             range(3)]  # fmt: skip
    joined = concatenate(parts)
    assert joined.mask is None
    assert joined.regions[:, 0, 0].tolist() == joined.pooled[:, 0].tolist() == [0, 1, 2]


def test_concatenate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="got no features"):
        concatenate([])


def test_texts_end_after_their_last_real_word():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    assert TextFeatures(torch.zeros(3, 4, 2), mask).ends.tolist() == [2, 3, 0]
    assert TextFeatures(torch.zeros(3, 4, 2)).ends.tolist() == [4, 4, 4]
