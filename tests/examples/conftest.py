"""Examples as a user runs them."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, request):
    """A function that loads an example's names, or skips; the module's NEEDS says for what."""

    def load(name):
        package, extra = request.module.NEEDS[name]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install "ascl-plugin[{extra}]"')
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))

    monkeypatch.syspath_prepend(EXAMPLES)
    yield load
    sys.modules.pop("made_embeddings", None)
