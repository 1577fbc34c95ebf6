"""Rows made contiguous hold what they held."""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.scores import contiguous

SCORES = torch.rand(300, 200, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "given",
    [SCORES, SCORES.T, SCORES[:, 20:150].T, SCORES[::2].T, SCORES[::3, ::2], SCORES[:1].T,
     SCORES[:0].T, SCORES.T.half(), SCORES.T[:70].double(), SCORES[5].expand(4, -1).T],
)  # fmt: skip
def test_contiguous(given):
    found = contiguous(given)
    assert found.is_contiguous() and found.dtype == given.dtype and torch.equal(found, given)


def test_contiguous_rows_are_not_copied():
    assert contiguous(SCORES).data_ptr() == SCORES.data_ptr()
