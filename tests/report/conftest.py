"""Folders of two runs and of a study, whose every text tries to be a tag."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

EVIL = "<script>alert(1)</script>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
METRICS = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")


def metrics(value):
    return {**dict.fromkeys(METRICS, value), "rsum": 6 * value, "i2t_medr": 2.0}


def row(name, value, **facts):
    facts = {"leaks": "", "transductive": False, **facts}
    return {"name": name, "metrics": metrics(value), **facts}


def _write_run(folder, value, **options):
    """A run whose recalls are all `value`, and `value` + 1 after re-ranking."""
    folder.mkdir(parents=True)
    rows = [row("initial", value), row("reranked", value + 1, transductive=True)]
    seed = options.setdefault("seed", 0)
    content = {"command": f"recipe {EVIL} {folder.name}", "seed": seed, "best": {"epoch": 3}}
    (folder / "metrics.json").write_text(
        json.dumps({**content, "test": {"protocol": "full", "rows": rows}})
    )
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())
    (folder / "config.yaml").write_text(lines)
    log = [{"step": s, "epoch": s, "loss": 1 / (s + 1), "val_rsum": 9.0 * s} for s in range(3)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def _write_experiment(folder, **result):
    folder.mkdir(parents=True)
    made_by = {"command": f"ascl experiment {EVIL}", "seeds": [0, 1], "split": "test"}
    (folder / "result.json").write_text(
        json.dumps({"title": "T", "tables": [], **made_by, **result})
    )
    return folder


@pytest.fixture
def write_run():
    return _write_run


@pytest.fixture
def write_experiment():
    return _write_experiment


@pytest.fixture
def folders(tmp_path):
    """`runs`: two of them; `study`: one experiment with everything in it; `all` of these."""
    first = _write_run(tmp_path / f"a {EVIL[:8]} & b %41", 50.0, data_root="/d/flickr", loss="ascl")
    second = _write_run(tmp_path / "second", 52.5, data_root="/d/flickr", loss="triplet")
    evaluated = {
        "split": "test",
        "protocol": "paired",
        "rows": [
            row("initial", 50.0, intervals={"rsum": [290.0, 310.0]}),
            row("AsCL, oracle: label groups", 91.0, leaks="labels", transductive=True),
            row("paired", 92.0, leaks="the pairing"),
        ],
        "asymmetry": {"asym1_caption": 93.25},
    }
    (first / "evaluated.json").write_text(json.dumps(evaluated))
    answer = {"text": f"yes {EVIL}", "picture": None, "alt": "", "score": 0.5, "right": True}
    pictured = {
        "text": None,
        "picture": "1.jpg",
        "alt": f'x" {EVIL}',
        "score": 0.25,
        "right": False,
    }
    ask = {"text": f"ask {EVIL}", "picture": "1.jpg", "alt": "one", "label": "its image"}
    lists = [
        {"model": f"m {EVIL}", "stage": "initial", "note": None, "answers": [answer]},
        {"model": "m", "stage": "re-ranked", "note": "at place 7", "answers": [pictured]},
    ]
    study = tmp_path / "study"
    name = _write_experiment(
        study / "cases",
        title=f"Cases {EVIL}",
        tables=[
            {
                "caption": f"Of {EVIL}",
                "rows": [{f"c {EVIL}": f"cell {EVIL}", "R@1": 12.34}],
                "leaks": [],
            }
        ],
        figures=[{"file": "f.svg", "caption": f"Figure {EVIL}"}],
        notes=[f"note {EVIL}"],
        cases=[{"way": "t2i", "title": f"case {EVIL}", "query": ask, "lists": lists}],
    )
    for file in ("f.svg", "f.dark.svg"):
        (name / file).write_text(SVG)
    (name / "1.jpg").write_bytes(b"jpeg")
    return SimpleNamespace(runs=[first, second], study=study, all=[first, second, study])
