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
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.retrieval.metrics import retrieval_metrics
from ascl_plugin.retrieval.model import RetrievalModel, to_inputs
from ascl_plugin.retrieval.pairs import score_pairs
from ascl_plugin.retrieval.processes import shares
from ascl_plugin.retrieval.scoring import score_matrix


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

    def evaluate(self, rows: Any, rerank_options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Metrics of a split.

        Args:
            rows: a split, with all captions of each row.
            rerank_options: of `rerank`; None leaves re-ranking out.

        Returns:
            `{"initial": metrics}`, with `"reranked"` if asked for, and `"asymmetry"` where the rows
            bring variants of a caption (see `asymmetry_benchmark`).
        """
        texts, index = caption_to_image(rows)
        sim = self.score(rows, texts)
        results: dict[str, Any] = {"initial": retrieval_metrics(sim, index)}
        if rerank_options is not None:
            after = rerank(sim, **rerank_options)
            results["reranked"] = retrieval_metrics(after.i2t, index, t2i=after.t2i)
        if "negative" in getattr(rows, "column_names", ()):
            from ascl_plugin.retrieval.asymmetry import asymmetry_benchmark

            results["asymmetry"] = asymmetry_benchmark(self, rows, sim, index)
        return results


def _rows(args: Any, config: Path) -> Any:
    """The split asked for, of `--data_root`, else of what the run was trained on."""
    options = yaml.safe_load(config.read_text()) if config.is_file() else {}
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
    )
    return require_splits(splits, [args.split], data_root)[args.split]


def evaluate_command(args: Any) -> int:
    """`ascl evaluate`: a saved model on a split of its own data, or of another data root."""
    from ascl_plugin.report.metrics_file import print_results, write_json

    path = Path(args.model)
    folder = path / "best" if (path / "best").is_dir() else path
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path}: no model here (no config.json, no best/config.json)")
    model = RetrievalModel.from_pretrained(str(folder)).eval()
    rows = _rows(args, path / "config.yaml")
    evaluator = Evaluator(
        model,
        ImageInputs(model.image_encoder),
        TextInputs(model.text_encoder),
        args.batch_size,
        progress=True,
    )
    results = evaluator.evaluate(rows, {} if args.rerank else None)
    print_results(results, f"{args.split}, {len(rows)} images")
    if args.output is not None:
        write_json(args.output, results)
    return 0
