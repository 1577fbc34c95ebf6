"""A model on a split: features, scores, recall before and after re-ranking, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.rerank import rerank
from ascl_plugin.rerank.oracle import ROW as ORACLE_ROW
from ascl_plugin.retrieval.asymmetry import VARIANTS, asymmetry_benchmark
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs, image_inputs
from ascl_plugin.retrieval.model import RetrievalModel, to_inputs
from ascl_plugin.retrieval.pairs import score_pairs
from ascl_plugin.retrieval.processes import shares
from ascl_plugin.retrieval.protocols import block, folds, query_results
from ascl_plugin.retrieval.scoring import score_matrix
from ascl_plugin.retrieval.statistics import confidence_intervals


class Evaluator:
    """Encodes and scores rows with a model; every process of a group takes a share of the images.

    Args:
        model: in the mode and on the device it is to be used.
        images, texts: how rows and strings become inputs.
        batch_size: rows, or texts, encoded at once.
        tile: images and texts scored at once; None takes what `score_matrix` has room for.
        progress: show a bar.
    """

    def __init__(
        self,
        model: RetrievalModel,
        images: ImageInputs,
        texts: TextInputs,
        batch_size: int = 64,
        tile: tuple[int, int] | None = None,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.images = images
        self.texts = texts
        self.batch_size = batch_size
        self.tile = tile
        self.progress = progress

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode_images(self, rows: Sequence[Any]) -> ImageFeatures:
        """Features of the images of the rows."""
        parts = []
        for start in range(0, len(rows), self.batch_size):
            batch = [rows[i] for i in range(start, min(start + self.batch_size, len(rows)))]
            parts.append(self.model.encode_images(to_inputs(self.images(batch), self.device)))
        return concatenate(parts)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Features of the texts."""
        parts = []
        for start in range(0, len(texts), self.batch_size):
            inputs = self.texts(texts[start : start + self.batch_size])
            parts.append(self.model.encode_texts(to_inputs(inputs, self.device)))
        return concatenate(parts)

    def score(self, rows: Any, texts: Sequence[str]) -> Tensor:
        """S (I, T) on the CPU, the same on every process; each encodes and scores its share."""
        own = shares("split", len(rows), self.device).own
        chosen = [rows[i] for i in range(own.start, own.stop)]
        images = self.encode_images(chosen or [rows[0]])[: len(chosen)]
        words = self.encode_texts(texts)
        return score_matrix(self.model, images, words, self.tile, self.progress, processes="own")

    def pairs(self, rows: Any, texts: Sequence[str]) -> Tensor:
        """S (I,) of row i with text i alone, each as it would be scored in the matrix."""
        images, words = self.encode_images(rows), self.encode_texts(texts)
        each = torch.arange(len(images))
        return score_pairs(self.model, images, words, each, each)

    @staticmethod
    def texts_of(rows: Any) -> list[str]:
        """Every text that `evaluate` of these rows encodes: captions, and variants if there are."""
        columns = [name for name in VARIANTS if name in getattr(rows, "column_names", ())]
        return caption_to_image(rows)[0] + [text for name in columns for text in rows[name]]

    def evaluate(
        self,
        rows: Any,
        rerank_options: dict[str, Any] | None = None,
        oracle: bool = False,
        protocol: str = "full",
        intervals: bool = False,
        sim: Tensor | None = None,
    ) -> dict[str, Any]:
        """Metrics of a split.

        Args:
            rows: a split, with all captions of each row.
            rerank_options: of `rerank`; None leaves re-ranking out.
            oracle: also re-rank with the labels as `caption_groups`, in a row of its own.
            protocol: "full" or "coco_1k" (see `protocol_metrics`); re-ranking sees one fold.
            intervals: also `"intervals"`, those of `confidence_intervals` for each row.
            sim: (I, T) what `score` gave for these rows and their captions, where it is at hand.

        Returns:
            `{"initial": metrics}`, with `"reranked"` and `"oracle: label groups"` if asked for, and
            `"asymmetry"` where the rows bring variants of a caption (see `asymmetry_benchmark`).

        Raises:
            ValueError: caption_groups among the options, and no `oracle`; a protocol that does not
                fit the rows.
        """
        if rerank_options is not None:
            rerank_options = without_labels(rerank_options, oracle)
        texts, index = caption_to_image(rows)
        owners = torch.from_numpy(index)
        parts = list(folds(owners, len(rows["captions"]), protocol))  # before the work of scoring
        if sim is None:
            sim = self.score(rows, texts)
        queries = {"initial": query_results(sim, index, protocol)}
        if rerank_options is not None:
            i2t, t2i = _reranked(sim, parts, rerank_options)
            queries["reranked"] = query_results(i2t, index, protocol, t2i)
        if oracle:
            by_label = ("text_neighbors", "text_embeddings")
            options = {k: v for k, v in (rerank_options or {}).items() if k not in by_label}
            i2t, t2i = _reranked(sim, parts, options, owners)
            queries[ORACLE_ROW] = query_results(i2t, index, protocol, t2i)
        results: dict[str, Any] = {name: found.metrics() for name, found in queries.items()}
        if intervals:
            results["intervals"] = {
                name: confidence_intervals(found) for name, found in queries.items()
            }
        if "negative" in getattr(rows, "column_names", ()):
            results["asymmetry"] = asymmetry_benchmark(self, rows, sim, index)
        return results


def _reranked(
    sim: Tensor,
    parts: Sequence[tuple[slice, Tensor]],
    options: dict[str, Any],
    groups: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Both directions re-ranked within each part of the matrix; all other scores are 0."""
    found = []
    for rows, columns in parts:
        labels = {} if groups is None else {"caption_groups": groups[columns].numpy() - rows.start}
        after = rerank(block(sim, rows, columns), **options, **labels)
        found.append((torch.as_tensor(after.i2t), torch.as_tensor(after.t2i)))
    if len(found) == 1:
        return found[0]
    i2t, t2i = torch.zeros_like(sim), torch.zeros_like(sim)
    for (rows, columns), (by_image, by_text) in zip(parts, found, strict=True):
        i2t[rows, columns], t2i[rows, columns] = by_image, by_text
    return i2t, t2i


def _rows(args: Any, options: dict[str, Any], pictures: bool) -> Any:
    """The split asked for, of `--data_root`, else of what the run was trained on."""
    data_root = args.data_root or options.get("data_root")
    if data_root is None:
        from ascl_plugin.data import scenes

        size = options.get(f"scenes_{args.split}", 500)
        return scenes.make(args.split, size, options.get("scenes_seed", 0))
    from ascl_plugin.data.readers import read, require_splits

    own = args.data_root is None
    splits = read(
        data_root,
        options.get("annotations") if own else None,
        args.image_root or (options.get("image_root") if own else None),
        pictures,
    )
    return require_splits(splits, [args.split], data_root)[args.split]


def without_labels(rerank_options: dict[str, Any], oracle: bool) -> dict[str, Any]:
    """The options of honest re-ranking: those given but caption_groups.

    Raises:
        ValueError: caption_groups is among them, and the oracle was not asked for.
    """
    if rerank_options.get("caption_groups") is not None and not oracle:
        raise ValueError(
            "caption_groups is among the options of re-ranking: it tells the labels that recall is "
            "measured by. Take it out, or add --oracle for a row with them beside the honest one"
        )
    return {k: v for k, v in rerank_options.items() if k != "caption_groups"}


def evaluate_command(args: Any) -> int:
    """`ascl evaluate`: a saved model on a split of its own data, or of another data root."""
    from ascl_plugin.report.metrics_file import print_results, write_json

    path = Path(args.model)
    folder = path / "best" if (path / "best").is_dir() else path
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path}: no model here (no config.json, no best/config.json)")
    config = path / "config.yaml"
    options = yaml.safe_load(config.read_text()) if config.is_file() else {}
    stored = {k.removeprefix("rerank_"): v for k, v in options.items() if k.startswith("rerank_")}
    rerank_options = without_labels(stored, args.oracle) if args.rerank else None
    model = RetrievalModel.from_pretrained(str(folder)).eval()
    region_files = args.region_files or options.get("region_files")
    pooled_files = args.pooled_files or options.get("pooled_files")
    rows = _rows(args, options, region_files is None)
    evaluator = Evaluator(
        model,
        image_inputs(model.image_encoder, None, region_files, pooled_files),
        TextInputs(model.text_encoder),
        args.batch_size,
        progress=True,
    )
    results = evaluator.evaluate(rows, rerank_options, args.oracle, args.protocol, args.ci)
    print_results(results, f"{args.split}, {len(rows)} images, protocol {args.protocol}")
    if args.output is not None:
        write_json(args.output, {"protocol": args.protocol, **results})
    return 0
