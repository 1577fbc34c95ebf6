"""The chance that a thing is there and not named, by hand and against hidden captions."""

from __future__ import annotations

import numpy as np
import pytest

from ascl_plugin.asymmetry.captions.naming import Naming


def test_by_hand():
    """Of three images with two captions each, "a" is named by both of one, by one of another.

    Others that could name it again: 2 and 1, and 2 did: r = (2 + 1) / (3 + 2) = 0.6. Two captions
    find it in 84 % of its images, so that it is in 2/3 / 0.84 of them.
    """
    naming = Naming([[{"a"}, {"a"}], [{"a", None}, set()], [{"b"}, set()]])
    share = 2 / 3 / 0.84
    for captions, unnamed in ((1, 0.4), (2, 0.16)):
        expected = share * unnamed / (share * unnamed + 1 - share)
        assert naming.chance("a", captions) == pytest.approx(expected)
    assert naming.chance("c", 1) == naming.chance(None, 1) == 0


def test_hidden_captions_agree():
    """Things in 30 % of 4,000 images, named with a chance of 0.4: what one caption does not say."""
    rng = np.random.default_rng(0)
    there = rng.random(4000) < 0.3
    said = (rng.random((4000, 5)) < 0.4) & there[:, None]
    naming = Naming([[{"a"} if named else set() for named in image] for image in said])
    silent = ~said[:, 0]
    assert naming.chance("a", 1) == pytest.approx(there[silent].mean(), abs=0.02)
    assert naming.chance("a", 5) == pytest.approx(there[~said.any(1)].mean(), abs=0.02)
