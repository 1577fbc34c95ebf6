"""Small shared pieces of the adapter tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture
def import_again(monkeypatch, tmp_path):
    """Import an adapter ("towers/bert") anew beside a framework made of `source` (None: absent)."""

    def run(adapter: str, framework: str, source: str | None):
        loaded = [n for n in sys.modules if n == framework or n.startswith(f"{framework}.")]
        for name in loaded:
            monkeypatch.delitem(sys.modules, name)
        if source is None:
            # as the import system raises it for a package that is not installed
            source = f"raise ModuleNotFoundError('No module', name={framework!r})"
        (tmp_path / f"{framework}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        file = Path(__file__).resolve().parents[2] / "adapters" / f"{adapter}.py"
        name = f"ascl_plugin.adapters.{adapter.replace('/', '.')}_again"
        spec = importlib.util.spec_from_file_location(name, file)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    return run


@pytest.fixture
def samples():
    """The module `region_samples` beside this file."""
    file = Path(__file__).with_name("region_samples.py")
    spec = importlib.util.spec_from_file_location("region_samples", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
