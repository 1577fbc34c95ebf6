"""Attention weights of a pair are those of the printed equations."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import reference
from ascl_plugin.fusion.attention_maps import attention_weights


@given(
    st.integers(0, 1000),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([(4, 1), (4, 2), (6, 3)]),
    st.sampled_from(["projected", "parameter-free"]),
)
@settings(max_examples=25, deadline=None)
def test_they_are_those_of_the_reference(draw, seed, regions, words, widths, attention):
    head, image, text = draw(seed, 1, regions, 1, words, *widths, attention=attention)
    taken = []

    def record(logits, dim):
        taken.append(softmax(logits, dim=dim))
        return taken[-1]

    softmax = torch.softmax
    with mock.patch.object(torch, "softmax", record):
        reference.score_parts(head, image, text)
    heads = widths[1]
    expected = [torch.stack(taken[:heads]).mean(0), torch.stack(taken[heads:]).mean(0)]

    for found, want, (asking, answering) in zip(
        attention_weights(head, image, text),
        expected,
        ((image.mask[0], text.mask[0]), (text.mask[0], image.mask[0])),
        strict=True,
    ):
        torch.testing.assert_close(found[asking][:, answering], want, atol=1e-12, rtol=1e-9)
        assert not found[~asking].any() and not found[:, ~answering].any()


def test_half_precision_and_no_masks(draw):
    head, image, text = draw(0, 1, 3, 1, 2)
    head, image, text = head.bfloat16(), ImageFeatures(image.regions.bfloat16()), text
    found = attention_weights(head, image, TextFeatures(text.words.bfloat16()))
    assert [x.shape for x in found] == [(3, 2), (2, 3)]
    assert all(x.dtype == torch.float32 and not x.requires_grad for x in found)
    for weights in found:
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_several_items_are_refused(draw):
    head, image, text = draw(0, 1, 3, 1, 2)
    with pytest.raises(ValueError, match="one image and one text, got 1 and 2"):
        attention_weights(head, image, TextFeatures(text.words.expand(2, -1, -1)))
