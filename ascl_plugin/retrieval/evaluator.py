"""Evaluation of a model on a split: features, scores, recall before and after re-ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.interfaces import AnyRows, NamedOptions, Rows
from ascl_plugin.metrics.protocols import block, folds, query_results
from ascl_plugin.metrics.result_row import ResultRow, SplitResults
from ascl_plugin.metrics.statistics import confidence_intervals
from ascl_plugin.reranking import rerank
from ascl_plugin.reranking.methods import Reranked
from ascl_plugin.reranking.neighbors import ROW as ORACLE_ROW
from ascl_plugin.retrieval.asymmetry_benchmark import VARIANTS, asymmetry_benchmark
from ascl_plugin.retrieval.audit import SplitAudit
from ascl_plugin.retrieval.inputs import BatchImages, TextInputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.retrieval.raw_features import to_inputs
from ascl_plugin.retrieval.views import MirroredRows
from ascl_plugin.scoring.blocks import device_of
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import LEAKS as PAIRED_LEAKS
from ascl_plugin.scoring.paired_protocol import ROW as PAIRED_ROW
from ascl_plugin.scoring.paired_protocol import paired_matrix
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.shares import shares

ORACLE_LEAKS = (
    "caption_groups are the labels that retrieval is to find: the captions of an image are taken "
    "as each other's neighbors"
)


class Evaluator:
    """A model that encodes and scores rows; each rank takes a share of the images.

    Args:
        model: used in its mode, on its device.
        images, texts: conversion of rows and strings to inputs.
        batch_size: rows, or texts, encoded at once.
        progress: show a bar.
        average_views: scores are the mean of those of an image and of its mirror image.
    """

    def __init__(
        self,
        model: RetrievalModel,
        images: BatchImages,
        texts: TextInputs,
        batch_size: int = 64,
        progress: bool = False,
        average_views: bool = False,
    ) -> None:
        self.model = model
        self.images = images
        self.texts = texts
        self.batch_size = batch_size
        self.progress = progress
        self.average_views = average_views

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return device_of(self.model)

    @torch.no_grad()
    def encode_images(self, rows: AnyRows) -> ImageFeatures:
        """Return the features of the rows' images."""
        parts = []
        for start in range(0, len(rows), self.batch_size):
            batch = [rows[i] for i in range(start, min(start + self.batch_size, len(rows)))]
            parts.append(self.model.encode_images(to_inputs(self.images(batch), self.device)))
        return concatenate(parts)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of the texts; those that the cache of texts lacks are added to it."""
        store, parts = self.texts.store, []
        if store is not None and (new := [text for text in texts if text not in store]):
            self.texts.prepare(new, self.batch_size, progress=self.progress)
        for start in range(0, len(texts), self.batch_size):
            inputs = self.texts(texts[start : start + self.batch_size])
            parts.append(self.model.encode_texts(to_inputs(inputs, self.device)))
        return concatenate(parts)

    def score(self, rows: AnyRows, texts: Sequence[str]) -> Tensor:
        """Return S (I, T) on the CPU. Collective: each rank encodes and scores a share."""
        own = shares("split", len(rows), self.device).own
        chosen = [rows[i] for i in range(own.start, own.stop)]
        words = self.encode_texts(texts)
        total: Tensor | None = None
        for view in self._views(chosen or [rows[0]]):
            images = self.encode_images(view)[: len(chosen)]
            sim = score_matrix(self.model, images, words, progress=self.progress, processes="own")
            total = sim if total is None else total.add_(sim)
        assert total is not None
        return total / 2 if self.average_views else total

    def paired_score(self, rows: AnyRows, texts: Sequence[str], caption_to_image: Tensor) -> Tensor:
        """Return S (I, T) as published: the pairing leaks into it (`PairedProtocol`). Collective.

        Raises:
            TypeError: the model's fusion is no `CrossModalFusion`.
        """
        images, words = self.encode_images(rows), self.encode_texts(texts)
        return paired_matrix(self.model, images, words, caption_to_image, self.progress, "split")

    def pairs(
        self, rows: AnyRows, texts: Sequence[str], index: Sequence[int] | None = None
    ) -> Tensor:
        """Return S (T,) of text t with row index[t], by default row t; as in the matrix."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        words = self.encode_texts(list(distinct))
        columns = torch.tensor([distinct[text] for text in texts])
        of_text = torch.arange(len(texts)) if index is None else torch.as_tensor(index)
        scores = [
            score_pairs(self.model, self.encode_images(view), words, of_text, columns)
            for view in self._views(rows)
        ]
        return torch.stack(scores).mean(0) if self.average_views else scores[0]

    def _views(self, rows: AnyRows) -> list[AnyRows]:
        return [rows, MirroredRows(rows)] if self.average_views else [rows]

    @staticmethod
    def texts_of(rows: Rows) -> list[str]:
        """Return every text that `evaluate` encodes: captions, and variants if there are any."""
        columns = [name for name in VARIANTS if name in getattr(rows, "column_names", ())]
        return caption_to_image(rows)[0] + [text for name in columns for text in rows[name]]

    def evaluate(
        self,
        rows: Rows,
        rerank_options: NamedOptions | None = None,
        oracle: bool = False,
        protocol: str = "full",
        intervals: bool = False,
        sim: Tensor | None = None,
        audited: bool = False,
    ) -> SplitResults:
        """Return the metrics of a split. Collective.

        Args:
            rows: a split, with all captions of each row.
            rerank_options: options of `rerank`; None: no re-ranking.
            oracle: also re-rank with the labels as `caption_groups`, in a row of its own.
            protocol: "full" or "coco_1k" (see `protocol_metrics`); re-ranking sees one fold.
                "paired": full, and a row of the published scores, which leak.
            intervals: also return `confidence_intervals` of each row.
            sim: (I, T) scores of these rows and their captions, if `score` was called before.
            audited: first audit the scorer and the honest matrix (`SplitAudit`).

        Returns:
            Rows "initial", and on request "reranked", "oracle: label groups" and "paired (leaks)";
            accuracies of `asymmetry_benchmark` if the rows have variants of a caption.

        Raises:
            ValueError: caption_groups among the options without `oracle`; a protocol that does not
                fit the rows.
            TypeError: "paired" for a model without `CrossModalFusion`.
            AuditError: the audit failed.
        """
        paired = protocol == "paired"
        if paired and not isinstance(self.model.fusion, CrossModalFusion):
            raise TypeError(
                'protocol "paired" needs a CrossModalFusion; the fusion of this model is '
                f"{type(self.model.fusion).__name__}"
            )
        gallery = "full" if paired else protocol
        if rerank_options is not None:
            rerank_options = without_labels(rerank_options, oracle)
        texts, index = caption_to_image(rows)
        owners = torch.from_numpy(index)
        parts = list(folds(owners, len(rows["captions"]), gallery))  # before the work of scoring
        audit = SplitAudit(self, rows, texts, owners) if audited else None
        if audit is not None:
            audit.check_scorer()
        if sim is None:
            sim = self.score(rows, texts)
        if audit is not None:
            audit.check_matrix(sim)

        def row(name: str, scores: Tensor | Reranked, leaks: str = "") -> ResultRow:
            if isinstance(scores, Reranked):
                found = query_results(scores.i2t, index, gallery, scores.t2i)
                leaks, transductive = ORACLE_LEAKS if scores.oracle else "", scores.transductive
            else:
                found, transductive = query_results(scores, index, gallery), False
            bounds = confidence_intervals(found) if intervals else {}
            return ResultRow(name, found.metrics(), leaks, transductive, bounds)

        results = [row("initial", sim)]
        if rerank_options is not None:
            results.append(row("reranked", _reranked(sim, parts, rerank_options)))
        if oracle:
            by_label = ("text_neighbors", "text_embeddings")
            options = {k: v for k, v in (rerank_options or {}).items() if k not in by_label}
            results.append(row(ORACLE_ROW, _reranked(sim, parts, options, owners)))
        if paired:
            results.append(row(PAIRED_ROW, self.paired_score(rows, texts, owners), PAIRED_LEAKS))
        asymmetry = {}
        if "negative" in getattr(rows, "column_names", ()):
            asymmetry = asymmetry_benchmark(self, rows, sim, index)
        return SplitResults(results, protocol, asymmetry, audit.report() if audit else {})


def _reranked(
    sim: Tensor,
    parts: Sequence[tuple[slice, Tensor]],
    options: NamedOptions,
    groups: Tensor | None = None,
) -> Reranked:
    """Re-rank both directions within each part of the matrix; all other scores are 0."""
    found = []
    for rows, columns in parts:
        labels = {} if groups is None else {"caption_groups": groups[columns].numpy() - rows.start}
        found.append(rerank(block(sim, rows, columns), **options, **labels))
    if len(found) == 1:
        return found[0]
    i2t, t2i = torch.zeros_like(sim), torch.zeros_like(sim)
    for (rows, columns), after in zip(parts, found, strict=True):
        i2t[rows, columns] = torch.as_tensor(after.i2t)
        t2i[rows, columns] = torch.as_tensor(after.t2i)
    return replace(found[0], i2t=i2t, t2i=t2i)


def without_labels(rerank_options: NamedOptions, oracle: bool) -> dict[str, Any]:
    """Return the options of honest re-ranking: all but caption_groups.

    Raises:
        ValueError: caption_groups is among them, and the oracle was not requested.
    """
    if rerank_options.get("caption_groups") is not None and not oracle:
        raise ValueError(
            "caption_groups is among the options of re-ranking: it has the labels that recall is "
            "measured by. Remove it, or add --oracle for a row with them beside the honest one"
        )
    return {k: v for k, v in rerank_options.items() if k != "caption_groups"}
