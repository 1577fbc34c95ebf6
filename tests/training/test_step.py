"""The seed of a step."""

from __future__ import annotations

from itertools import product

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
from ascl_plugin.training.step import step_seed


def test_a_seed_of_its_own_for_every_step_and_rank():
    """Pinned, because a run that is resumed elsewhere must draw the same."""
    assert [step_seed(0, 0, 0), step_seed(3, 100, 1)] == [15793235383387715774, 4381394260959035977]
    assert len({step_seed(*numbers) for numbers in product(range(3), range(50), range(4))}) == 600
