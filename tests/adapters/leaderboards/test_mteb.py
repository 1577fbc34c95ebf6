"""MTEB's own `evaluate` on our models, and tasks of a few scenes that are in memory."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("mteb", reason="extra `mteb`")
import datasets
import mteb
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.mocks.mock_tasks import MockAny2AnyRetrievalI2TTask, MockAny2AnyRetrievalT2ITask

from ascl_plugin import RetrievalModel
from ascl_plugin.adapters.leaderboards.mteb import MtebCrossEncoder, MtebEncoder, MtebSearch
from ascl_plugin.data import scenes
from ascl_plugin.data.images import load_image
from ascl_plugin.metrics.protocols import protocol_metrics
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

IMAGES = 8


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RetrievalModel(
        image_encoder={"name": "grid", "width": 8},
        text_encoder={
            "name": "transformer",
            "width": 8,
            "vocabulary": ["a", "red", "small", "car"],
        },
        fusion={"name": "cross_modal", "num_heads": 4},
        dim=8,
    ).eval()


@pytest.fixture(scope="module")
def data(model):
    """Pictures, texts that all differ, owners; scores of the vectors and of the fusion."""
    rows = scenes.make("test", IMAGES)
    pictures = [load_image(row["image"], row["image_id"]) for row in rows]
    first = {}
    for number, row in enumerate(rows):
        for text in row["captions"]:
            first.setdefault(text, number)
    texts, owners = list(first), torch.tensor(list(first.values()))
    assert len(owners.unique()) == IMAGES
    v, w = model.embed_images(pictures), model.embed_texts(texts)
    return pictures, texts, owners, image_embeddings(v) @ text_embeddings(w).T, model.score(v, w)


def task(data, way, ranked=False):
    """A retrieval task of the data; with `ranked`, one that brings all documents as candidates."""
    pictures, texts, owners, *_ = data
    images = [f"i{n}" for n in range(len(pictures))]
    names = [f"t{n}" for n in range(len(texts))]
    of_images = datasets.Dataset.from_dict({"id": images, "image": pictures})
    of_texts = datasets.Dataset.from_dict({"id": names, "text": texts})
    right: dict[str, dict[str, int]] = {}
    for text, image in zip(names, owners.tolist(), strict=True):
        query, document = (text, images[image]) if way == "t2i" else (images[image], text)
        right.setdefault(query, {})[document] = 1
    queries, corpus = (of_texts, of_images) if way == "t2i" else (of_images, of_texts)
    candidates = {query: list(corpus["id"]) for query in queries["id"]} if ranked else None
    split = RetrievalSplitData(
        queries=queries, corpus=corpus, relevant_docs=right, top_ranked=candidates
    )
    made = (MockAny2AnyRetrievalT2ITask if way == "t2i" else MockAny2AnyRetrievalI2TTask)()
    made.dataset, made.data_loaded = {"default": {"test": split}}, True
    return made


def scores(model, one):
    """What MTEB finds: nDCG@10, and the share of queries with a right answer among the first."""
    found = mteb.evaluate(
        model, one, cache=None, co2_tracker=False, encode_kwargs={"batch_size": 5},
        show_progress_bar=False,
    )  # fmt: skip
    (result,) = found.task_results
    (values,) = result.scores["test"]
    return {name: 100 * values[key] for name, key in NAMES.items()}


NAMES = {"ndcg10": "ndcg_at_10", "r1": "hit_rate_at_1"}


def ours(sim, owners, way):
    found = protocol_metrics(sim, owners)
    return pytest.approx({name: found[f"{way}_{name}"] for name in NAMES}, abs=0.01)


@pytest.mark.parametrize("way", ["i2t", "t2i"])
def test_its_figures_are_those_of_the_scores(model, data, way):
    _, _, owners, cosine, fused = data
    assert scores(MtebEncoder(model), task(data, way)) == ours(cosine, owners, way)
    assert scores(MtebCrossEncoder(model), task(data, way, ranked=True)) == ours(fused, owners, way)
    # the second stage sees everything, or the first three alone
    assert scores(MtebSearch(model), task(data, way)) == ours(fused, owners, way)
    axis = 0 if way == "t2i" else 1
    third = cosine.topk(3, dim=axis).values.min(dim=axis, keepdim=True).values
    staged = torch.where(cosine >= third, fused + 100, cosine)
    assert scores(MtebSearch(model, rerank=3), task(data, way)) == ours(staged, owners, way)


def test_what_makes_no_pair(model, data):
    with pytest.raises(ValueError, match="rerank must be at least 1, got 0"):
        MtebSearch(model, rerank=0)
    texts = datasets.Dataset.from_dict({"text": data[1][:2]})
    loader = torch.utils.data.DataLoader(texts, 2)
    with pytest.raises(ValueError, match="both sides are of one kind"):
        MtebCrossEncoder(model).predict(loader, loader)
