"""Facts of the scenes whose captions are edited."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def known(rows):
    """What is true of each of the module's `rows`."""
    return [set(each) for each in rows["facts"]]
