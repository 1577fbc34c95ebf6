"""Retrieval models in MTEB: as an encoder, as a cross-encoder, and as a search that re-ranks.

`mteb.evaluate(MtebSearch("outputs/run"), tasks)` and the like. Its tasks hold a text that occurs
twice once, and its figures are nDCG@10 and a recall of its own: they are no Rsum.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ascl_plugin.adapters.missing import needs
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.search import image_embeddings, text_embeddings

with needs("mteb", "mteb"):
    from mteb.models import ModelMeta, SearchCrossEncoderWrapper, SearchEncoderWrapper

if TYPE_CHECKING:
    from mteb.types import BatchedInput, CorpusDatasetType, QueryDatasetType

#: Query -> document -> score.
Found = dict[str, dict[str, float]]


class _Held:
    """A model under a name of MTEB's.

    Args:
        model: the model, or the folder of a run or of a saved model.
        name: "organisation/model", as results are filed.
        revision: which state of the model.
    """

    def __init__(
        self,
        model: RetrievalModel | str | Path,
        name: str = "ascl_plugin/model",
        revision: str = "local",
    ) -> None:
        if not isinstance(model, RetrievalModel):
            model = RetrievalModel.from_pretrained(model)
        self.model = model
        about = {"name": name, "revision": revision, "modalities": ["image", "text"]}
        self.mteb_model_meta = ModelMeta.create_empty(about)


class MtebEncoder(_Held):
    """The model's vectors: of whole images and texts, or the means of regions and words.

    Its similarity is their cosine. With the fusion "pooled" this is the model's score; otherwise
    it is the first stage alone, see `MtebSearch`.
    """

    def encode(self, inputs: DataLoader[BatchedInput], **kwargs: Any) -> Tensor:
        """Return vectors (N, D) of unit length, of images or of texts."""
        of = "regions" if self.model.text_pool is None else "pooled"
        features = features_of(self.model, inputs)
        if isinstance(features, ImageFeatures):
            return image_embeddings(features, of)
        return text_embeddings(features, of)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return inner products (N, M)."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return inner products (N,)."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(-1)


class MtebCrossEncoder(_Held):
    """The model's own score of pairs, for tasks that bring candidates."""

    def predict(
        self, inputs1: DataLoader[BatchedInput], inputs2: DataLoader[BatchedInput], **kwargs: Any
    ) -> Tensor:
        """Return the scores (N,) of query n with document n: images and texts, or texts and images.

        Each item is encoded once, however many pairs it is in.

        Raises:
            ValueError: two images, or two texts.
        """
        (one, rows), (other, columns) = _distinct(inputs1), _distinct(inputs2)
        queries, documents = features_of(self.model, one), features_of(self.model, other)
        if isinstance(queries, ImageFeatures) and isinstance(documents, TextFeatures):
            return score_pairs(self.model, queries, documents, rows, columns)
        if isinstance(queries, TextFeatures) and isinstance(documents, ImageFeatures):
            return score_pairs(self.model, documents, queries, columns, rows)
        raise ValueError("a pair needs an image and a text; both sides are of one kind")


class MtebSearch(_Held):
    """A search in two stages: by the vectors, then the first ones by the model's own score.

    Args:
        model, name, revision: as the others.
        rerank: number of documents, of each query, that the second stage scores; the others follow
            in their order.

    Raises:
        ValueError: rerank below 1.
    """

    def __init__(
        self,
        model: RetrievalModel | str | Path,
        rerank: int = 100,
        name: str = "ascl_plugin/model",
        revision: str = "local",
    ) -> None:
        if rerank < 1:
            raise ValueError(f"rerank must be at least 1, got {rerank}")
        super().__init__(model, name, revision)
        self.rerank = rerank
        self._first = SearchEncoderWrapper(MtebEncoder(self.model, name, revision))
        self._second = SearchCrossEncoderWrapper(MtebCrossEncoder(self.model, name, revision))

    def index(self, corpus: CorpusDatasetType, **kwargs: Any) -> None:
        """Take the documents."""
        for stage in (self._first, self._second):
            stage.index(corpus, **kwargs)

    def search(self, queries: QueryDatasetType, *, top_k: int, **kwargs: Any) -> Found:
        """Return the scores of the first `top_k` documents of each query."""
        found = self._first.search(queries, top_k=max(top_k, self.rerank), **kwargs)
        ranked = {
            query: sorted(own, key=own.__getitem__, reverse=True) for query, own in found.items()
        }
        kwargs["top_ranked"] = {query: names[: self.rerank] for query, names in ranked.items()}
        again = self._second.search(queries, top_k=self.rerank, **kwargs)
        result = {}
        for query, names in ranked.items():
            scores = dict(again[query])
            rest = names[self.rerank :]
            below = min(scores.values()) - 1 - found[query][rest[0]] if rest else 0.0
            scores |= {name: found[query][name] + below for name in rest}
            best = sorted(scores, key=scores.__getitem__, reverse=True)[:top_k]
            result[query] = {name: scores[name] for name in best}
        return result


def features_of(
    model: RetrievalModel, inputs: DataLoader[BatchedInput]
) -> ImageFeatures | TextFeatures:
    """Return the features of all inputs, which are images, or texts.

    Raises:
        ValueError: inputs of both an image and a text, or of neither.
    """
    images: list[ImageFeatures] = []
    texts: list[TextFeatures] = []
    for batch in inputs:
        if ("image" in batch) == ("text" in batch):
            raise ValueError(f"an input must be an image or a text, got {', '.join(batch)}")
        if "image" in batch:
            images.append(model.embed_images(batch["image"]))
        else:
            texts.append(model.embed_texts(batch["text"]))
    return concatenate(images) if images else concatenate(texts)


def _distinct(inputs: DataLoader[BatchedInput]) -> tuple[DataLoader[BatchedInput], Tensor]:
    """Return a loader of the items that differ in their id, and the place of each input in it."""
    rows: Any = inputs.dataset
    if "id" not in getattr(rows, "column_names", ()):
        return inputs, torch.arange(len(rows))
    ids = rows["id"][:]
    first: dict[str, int] = {}
    for number, name in enumerate(ids):
        first.setdefault(name, number)
    place = {name: number for number, name in enumerate(first)}
    some = DataLoader(
        rows.select(list(first.values())), inputs.batch_size, collate_fn=inputs.collate_fn
    )
    return some, torch.tensor([place[name] for name in ids])
