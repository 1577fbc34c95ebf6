"""Every Python snippet of README.md and docs/ runs, and so does every example in a docstring.

The snippets of a file run in their order in one namespace, in an empty folder. One that shows what
to do with files or packages a reader brings is preceded by a line `<!-- no-run -->`.
"""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path

import pytest

import ascl_plugin
from ascl_plugin import registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
SNIPPET = re.compile(r"^(<!-- no-run -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
# the entry-point group is no module
MODULE = re.compile(r"\b(?<!/)ascl_plugin(?:\.(?!components)\w+)+")
FILE = re.compile(r"\b(?:ascl_plugin|adapters|benchmarks|recipes|tests)/[a-z_\d/]+\.(?:py|yaml)")


def modules_with_examples() -> list[str]:
    found = []
    for folder, name in (("ascl_plugin", "ascl_plugin"), ("adapters", "ascl_plugin.adapters")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            examples = [line for line in path.read_text().splitlines() if ">>>" in line]
            if not all("doctest: +SKIP" in line for line in examples):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                found.append(".".join((name, *parts)).removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # what a snippet registers stays in it
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    text = page.read_text()
    namespace: dict[str, object] = {"__name__": "snippet"}
    for match in SNIPPET.finditer(text):
        skipped, code = match.groups()
        # line numbers of errors are those of the page
        padding = "\n" * text.count("\n", 0, match.start(2))
        compiled = compile(padding + code, str(page), "exec")
        if not skipped:
            exec(compiled, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, *PROSE], ids=lambda page: page.name)
def test_named_modules_and_files_exist(page):
    text = page.read_text().partition("### Removed before")[0]  # after it: names that are gone
    for name in set(MODULE.findall(text)):
        assert resolves(name), f"{page.name} names {name}"
    for name in set(FILE.findall(text)):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def resolves(name: str) -> bool:
    """Return True if a dotted name is a module, or an attribute of one."""
    module, _, rest = name.partition(".")
    value = importlib.import_module(module)
    for part in rest.split("."):
        if not hasattr(value, part):
            try:
                importlib.import_module(f"{value.__name__}.{part}")
            except ModuleNotFoundError:
                return False
            except ImportError:  # it is there, and asks for its extra
                return True
        value = getattr(value, part)
    return True


def test_every_public_name_has_its_place_in_the_reference():
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    found = re.findall(r"^::: ascl_plugin\.(\w+)$", "\n".join(p.read_text() for p in pages), re.M)
    assert sorted(found) == [name for name in dir(ascl_plugin) if name != "__version__"]


def test_pages_are_short_and_have_their_place_in_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert len(page.read_text().splitlines()) <= 250, page.name
        assert str(page.relative_to(ROOT / "docs")) in listed, page.name


def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="extra `recipes`")
    pytest.importorskip("matplotlib", reason="extra `report`").use("Agg")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "features_to_table.ipynb").read_text())
    namespace: dict[str, object] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    table = namespace["table"]
    assert table["inverted_softmax"]["rsum"] > table["scores"]["rsum"] > 200  # chance: 31.5


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
