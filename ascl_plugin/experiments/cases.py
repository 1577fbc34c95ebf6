"""The case study (Figure 8): first answers of two models both ways, right and wrong marked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.disk import written
from ascl_plugin.experiments.plan import Settings, with_defaults
from ascl_plugin.experiments.study import Study, Trained, models_of
from ascl_plugin.interfaces import Rows
from ascl_plugin.report.document import Answer, Answers, Case, Item, Section
from ascl_plugin.reranking import rerank

_DEFAULTS: Settings = {
    "models": None, "count": 4, "seed": 0, "top": 3, "rerank": True,
}  # fmt: skip
_SIDE = 192  # of a thumbnail, in pixels
_WAYS = {"i2t": "Image to captions", "t2i": "Caption to images"}


@dataclass(frozen=True)
class _List:
    """Answers of one model before or after re-ranking: (Q, G) scores to sort by, both ways."""

    model: str
    stage: str
    order: dict[str, Tensor]
    sim: Tensor


def experiment(study: Study, settings: Settings) -> Section:
    """Return top captions of images and top images of captions, with scores before re-ranking.

    Pictures are JPEG files in the experiment's folder.

    Args:
        study: its first seed is shown.
        settings: `models` (default: the first two), `count` queries each way (4), `seed` of their
            choice (0), `top` answers (3), `rerank` (true: also after it).

    Raises:
        ValueError: an unknown setting or model.
    """
    chosen = with_defaults("cases", settings, _DEFAULTS)
    for name in ("count", "top"):
        if not isinstance(chosen[name], int) or chosen[name] < 1:
            raise ValueError(f"cases: {name} must be an integer of at least 1, got {chosen[name]}")
    names = models_of(study, chosen)
    for name in names:
        if name not in study.models:
            raise ValueError(f"cases: no model {name!r}; there are {', '.join(study.models)}")
    trained = {name: study.trained(name, study.seeds[0]) for name in names}
    lists = [found for name in names for found in _lists(name, trained[name], chosen["rerank"])]
    first = trained[names[0]]
    pictures = _Pictures(study, first.rows)
    cases, notes = [], [f"Models of seed {study.seeds[0]}; {chosen['top']} first answers."]
    for way, title in _WAYS.items():
        total = len(lists[0].order[way])
        rng = np.random.default_rng(chosen["seed"])
        queries = sorted(rng.choice(total, min(chosen["count"], total), replace=False).tolist())
        notes.append(f"{title}: drawn at random, seed {chosen['seed']}, from all {total} queries.")
        cases += [_case(way, query, lists, first, pictures, chosen["top"]) for query in queries]
    if chosen["rerank"]:
        notes.append("Re-ranked lists are transductive; scores shown are those before re-ranking.")
    if pictures.missing:
        notes.append(f"No picture file of {', '.join(sorted(pictures.missing))}.")
    return Section("Case study: first answers, right and wrong", notes=notes, cases=cases)


def _lists(name: str, trained: Trained, reranking: bool) -> list[_List]:
    sim = trained.sim
    found = [_List(name, "initial", {"i2t": sim, "t2i": sim.T}, sim)]
    if reranking:
        after = rerank(sim, **{k: trained.options[f"rerank_{k}"] for k in ("k", "text_neighbors")})
        order = {"i2t": torch.as_tensor(after.i2t), "t2i": torch.as_tensor(after.t2i).T}
        found.append(_List(name, "re-ranked", order, sim))
    return found


def _right(way: str, query: int, answers: Sequence[int], owners: np.ndarray) -> list[bool]:
    """Return for each answer if query and answer belong together."""
    if way == "i2t":
        return [bool(owners[text] == query) for text in answers]
    return [bool(owners[query] == image) for image in answers]


def _case(
    way: str, query: int, lists: Sequence[_List], trained: Trained, pictures: _Pictures, top: int
) -> Case:
    owners, texts = trained.caption_to_image, trained.texts
    own = query if way == "i2t" else int(owners[query])
    asked, label = pictures.of(own), "the query"
    title = f"Image {trained.rows[own]['image_id']}: which captions?"
    if way == "t2i":
        asked["text"], label = texts[query], "the image it was written for"
        title = f"Caption {query}: which images?"
    shown: list[Answers] = []
    for found in lists:
        everything = found.order[way][query].argsort(descending=True, stable=True).tolist()
        right = _right(way, query, everything, owners)
        scores = found.sim[query] if way == "i2t" else found.sim[:, query]
        items: list[Answer] = []
        for answer, is_right in zip(everything[:top], right, strict=False):
            item: Item = {"text": texts[answer], "picture": None, "alt": ""}
            if way == "t2i":
                item = pictures.of(answer)
            items.append({**item, "score": float(scores[answer]), "right": is_right})
        place = right.index(True) + 1
        note = f"the first right answer is at place {place}" if place > top else None
        shown.append({"model": found.model, "stage": found.stage, "answers": items, "note": note})
    return {"way": way, "title": title, "query": {**asked, "label": label}, "lists": shown}


class _Pictures:
    """Thumbnails of rows, each written once."""

    def __init__(self, study: Study, rows: Rows) -> None:
        self.study = study
        self.rows = rows
        self.missing: set[str] = set()

    def of(self, row: int) -> Item:
        """Return the file and the text of an image; no file if there is no picture."""
        from ascl_plugin.data.images import load_image

        content = self.rows[row]
        found: Item = {"text": None, "picture": None, "alt": ""}
        found["alt"] = f"{content['image_id']}: {content['captions'][0]}"
        cell = content["image"] or {}
        if cell.get("bytes") is None and not os.path.isfile(cell.get("path") or ""):
            self.missing.add(content["image_id"])
            return found
        picture = load_image(cell, content["image_id"])
        picture.thumbnail((_SIDE, _SIDE))
        path = self.study.path("cases", f"{row}.jpg")
        with written(path) as aside:
            picture.save(aside, "JPEG", quality=80)
        return {**found, "picture": path.name}
