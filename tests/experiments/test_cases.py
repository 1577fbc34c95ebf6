"""The case study: three images of two captions each, scores written by hand."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("PIL", reason="extra `recipes`")

from PIL import Image

from ascl_plugin.experiments.cases import experiment
from ascl_plugin.reranking import rerank

TEXTS = ["a0", "a1", "b0", "b1", "c0", "c1"]
SIMS = {
    "good": [[9, 8, 1, 2, 3, 4], [1, 2, 9, 8, 3, 4], [1, 2, 3, 4, 9, 8]],
    # image b prefers c0, then c1, then its own b0; b1 prefers image c, c0 and c1 image b
    "bad": [[9, 8, 1, 2, 3, 4], [1, 2, 5, 3, 9, 8], [1, 2, 3, 4, 7, 6]],
    "other": torch.rand(3, 6, generator=torch.Generator().manual_seed(1)).tolist(),
}


def png(size):
    data = io.BytesIO()
    Image.new("RGB", size, "red").save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


@pytest.fixture
def study(tmp_path):
    rows = [
        {"image_id": name, "captions": [f"{name}0", f"{name}1"], "image": png((600, 300))}
        for name in "abc"
    ]
    options = {"rerank_k": 2, "rerank_text_neighbors": 1}

    def trained(model, seed):
        sim = torch.tensor(SIMS[model], dtype=torch.float32)
        owners = np.arange(6) // 2
        return SimpleNamespace(
            rows=rows, texts=TEXTS, caption_to_image=owners, sim=sim, options=options
        )

    models = {name: {} for name in SIMS}
    return SimpleNamespace(
        models=models, seeds=[7], trained=trained, rows=rows, path=lambda _, name: tmp_path / name
    )


def answers(case, model, stage="initial"):
    (found,) = [x for x in case["lists"] if (x["model"], x["stage"]) == (model, stage)]
    return found["answers"]


def of(result, query):
    (case,) = [case for case in result.cases if query in (case["query"]["text"], case["title"])]
    return case


def test_first_answers_of_two_models_both_ways(study):
    result = experiment(study, {"count": 9, "rerank": False})
    assert [case["way"] for case in result.cases] == ["i2t"] * 3 + ["t2i"] * 6
    case = of(result, "Image b: which captions?")
    told = [(a["text"], a["score"], a["right"]) for a in answers(case, "good")]
    assert told == [("b0", 9, True), ("b1", 8, True), ("c1", 4, False)]
    told = [(a["text"], a["score"], a["right"]) for a in answers(case, "bad")]
    assert told == [("c0", 9, False), ("c1", 8, False), ("b0", 5, True)]
    case = of(result, "c0")
    told = [(a["picture"], a["score"], a["right"]) for a in answers(case, "bad")]
    assert told == [("1.jpg", 9, False), ("2.jpg", 7, True), ("0.jpg", 3, False)]
    assert case["query"]["picture"] == "2.jpg" and "written for" in case["query"]["label"]
    assert json.loads(json.dumps(result.cases)) == result.cases


def test_where_the_first_right_answer_is(study):
    result = experiment(study, {"count": 9, "top": 2, "rerank": False})
    (good, bad) = of(result, "Image b: which captions?")["lists"]
    assert good["note"] is None and bad["note"] == "the first right answer is at place 3"


def test_re_ranked_lists_have_their_order_and_the_scores_of_before(study):
    sim = torch.tensor(SIMS["other"])
    after = rerank(sim, k=2, text_neighbors=1)
    result = experiment(study, {"models": ["other"], "count": 9})
    moved = 0
    for case in result.cases:
        t2i = case["way"] == "t2i"
        query = TEXTS.index(case["query"]["text"]) if t2i else "abc".index(case["title"][6])
        order, scores = (after.t2i.T, sim.T) if t2i else (after.i2t, sim)
        wanted = order[query].argsort(descending=True, stable=True)[:3]
        found = answers(case, "other", "re-ranked")
        assert [a["score"] for a in found] == scores[query, wanted].tolist()
        moved += found != answers(case, "other")
    assert moved
    assert any("transductive" in note for note in result.notes)


def test_thumbnails_are_small_jpegs(study, tmp_path):
    experiment(study, {"count": 1})
    files = sorted(tmp_path.glob("*"))
    assert files
    for file in files:
        with Image.open(file) as picture:
            assert (picture.format, picture.size) == ("JPEG", (192, 96))
    assert max(file.stat().st_size for file in files) < 10_000


def test_queries_depend_on_the_seed_and_on_nothing_else(study):
    def chosen(seed):
        result = experiment(study, {"count": 2, "seed": seed})
        return [case["title"] for case in result.cases]

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(8)}) > 2


def test_rows_without_a_picture_are_told_by_name(study):
    for row in study.rows:
        row["image"] = {"bytes": None, "path": "/none.jpg"}
    result = experiment(study, {"count": 9})
    case = of(result, "c0")
    assert case["query"]["picture"] is None and case["query"]["alt"] == "c: c0"
    assert any("No picture file of a, b, c" in note for note in result.notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cuont": 3}, "no setting 'cuont'"),
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"models": ["good", "x"]}, "no model 'x'; there are good, bad, other"),
    ],
)
def test_settings_that_do_not_fit(study, settings, message):
    with pytest.raises(ValueError, match=message):
        experiment(study, settings)
