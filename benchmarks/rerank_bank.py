"""Gain of a re-ranker fitted on a bank of other queries, beside the transductive one, on Flickr8k.

    python benchmarks/rerank_bank.py RUN_DIR --matrices DIR --cache_dir CACHE

RUN_DIR is a finished run of `recipes/ascl_coco.py` on Flickr8k, such as `flickr8k_linear.yaml`. Its
best model scores the validation split against itself and against all training images and captions;
the matrices are kept in DIR. Galleries are the two halves of the validation images with their
captions. Options are chosen on one half and reported on the other, both ways, by the sum of the
recalls of a direction; means over the two are printed. Three banks: the queries of the gallery
themselves (transductive), all training queries, the validation queries of the other half.

`--check` prints, for every half, direction, bank and setting, how often the label-free signs of
`Reranker.check` agree with the gain; `--also` adds more matrices to these cases, each with the bank
of its other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ascl_plugin import Reranker
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.report.table import Table, markdown_table
from ascl_plugin.reranking.bank_check import BankCheck

GRIDS: dict[str, list[dict[str, Any]]] = {
    "inverted_softmax": [{"temperature": t} for t in (0.02, 0.03, 0.05, 0.1)],
    "nnn": [{"alpha": a, "neighbors": n} for a, n in ((0.5, 16), (0.75, 16), (0.75, 256))],
    "csls": [{"neighbors": n} for n in (4, 16)],
    "dn": [{}],
    "sinkhorn": [{"temperature": t, "iterations": 10} for t in (0.03, 0.05)],
    "dual_softmax": [{"temperature": t} for t in (0.03, 0.05)],
    "qb_norm": [{"temperature": t, "activation_k": 1} for t in (0.03, 0.05)],
}
Banks = dict[str, np.ndarray]
OWN, OTHER = "queries themselves", "other validation"


def matrices_of(folder: Path, run: Path, cache: str | None) -> Banks:
    """Return scores of the run's model; computes them once.

    Returns:
        val (I, T) and own (T,), its captions' images; train_captions (I, T') of the same images
        with all training captions; train_images (I', T) of all training images.
    """
    names = ("val", "own", "train_captions", "train_images")
    paths = {name: folder / f"{name}.npy" for name in names}
    if not all(path.is_file() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in scored(run, cache).items():
            np.save(paths[name], values)
    return {name: np.load(path, mmap_mode="r") for name, path in paths.items()}


@torch.no_grad()
def scored(run: Path, cache: str | None) -> Banks:
    """Score the validation split against itself and the training split, mean of mirror views."""
    from ascl_plugin.data.rows import caption_to_image
    from ascl_plugin.features import concatenate
    from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
    from ascl_plugin.retrieval.model import RetrievalModel, to_inputs
    from ascl_plugin.retrieval.views import MirroredRows
    from ascl_plugin.training.parsing import parse_options
    from ascl_plugin.training.resolve import resolve
    from ascl_plugin.training.setup import load_splits
    from ascl_plugin.yaml_file import read_yaml

    model = RetrievalModel.from_pretrained(str(run / "best"))
    options = {n: v for n, v in read_yaml(run / "config.yaml").items() if n != "resume"}
    splits = load_splits(resolve(parse_options([], options)))

    def encode(function: Callable, rows: Any, inputs: Callable) -> Any:
        parts = [rows[i : i + 250] for i in range(0, len(rows), 250)]
        return concatenate([function(to_inputs(inputs(part), "cpu")) for part in parts])

    found = {}
    for split in ("val", "train"):
        rows = splits[split]
        texts, own = caption_to_image(rows)
        of_images = ImageInputs(model.image_encoder, cache, wholes=model.wholes_only)
        of_texts = TextInputs(
            model.text_encoder, cache, lexical=model.lexical_ids, pool=model.pool_words
        )
        views = [rows, MirroredRows(rows)]
        for view in views:
            of_images.prepare(view, 128, progress=True)
        of_texts.prepare(texts, 128, progress=True)
        images = [encode(model.encode_images, list(view), of_images) for view in views]
        found[split] = (images, encode(model.encode_texts, texts, of_texts), np.asarray(own))

    def scores(of_images: str, of_texts: str) -> np.ndarray:
        images, texts = found[of_images][0], found[of_texts][1]
        parts = [[model.fusion(view, part) for part in texts.split(1000)] for view in images]
        return (sum(torch.cat(columns, dim=1) for columns in parts) / len(parts)).numpy()

    return {
        "val": scores("val", "val"),
        "own": found["val"][2],
        "train_captions": scores("val", "train"),
        "train_images": scores("train", "val"),
    }


class Direction:
    """One direction of retrieval in one half of the validation split.

    Args:
        scores: (Q, G).
        owners: (T,), image of each caption.
        i2t: True if queries are images.
        banks: name -> (B, G), scores of other queries with the gallery.
    """

    def __init__(self, scores: np.ndarray, owners: np.ndarray, i2t: bool, banks: Banks) -> None:
        self.scores, self.owners, self.i2t, self.banks = scores, owners, i2t, banks
        self.before = self.recalls(scores)

    def recalls(self, scores: np.ndarray) -> np.ndarray:
        """Return R@1 and the sum of R@1, R@5 and R@10."""
        matrix = scores if self.i2t else scores.T
        found = retrieval_metrics(matrix, self.owners)
        name = "i2t" if self.i2t else "t2i"
        values = [found[f"{name}_r{k}"] for k in (1, 5, 10)]
        return np.array([values[0], sum(values)])

    def fitted(self, method: str, options: dict[str, Any], bank: str) -> Reranker:
        """Return a re-ranker fitted on a bank."""
        return Reranker(method, **options).fit(self.banks[bank])

    def gain(self, reranker: Reranker) -> np.ndarray:
        """Return the change of R@1 and of the sum of recalls."""
        return self.recalls(np.asarray(reranker.transform(self.scores))) - self.before


def halves(m: Banks) -> list[dict[str, Direction]]:
    """Return both directions of both halves of the images; two banks without scores of training."""
    found = []
    middle = len(m["val"]) // 2
    images = [np.arange(middle), np.arange(middle, len(m["val"]))]
    for own, other in (images, images[::-1]):
        texts, others = (np.flatnonzero(np.isin(m["own"], x)) for x in (own, other))
        val = np.asarray(m["val"])
        scores = val[np.ix_(own, texts)]
        owners = m["own"][texts] - own[0]
        of_texts = {OWN: scores, OTHER: val[np.ix_(other, texts)]}
        of_images = {OWN: scores.T, OTHER: val[np.ix_(own, others)].T}
        if "train_images" in m:
            of_texts["training"] = m["train_images"][:, texts]
            of_images["training"] = m["train_captions"][own].T
        found.append(
            {
                "I2T": Direction(scores, owners, True, of_texts),
                "T2I": Direction(scores.T, owners, False, of_images),
            }
        )
    return found


class Cases:
    """Gains and label-free signs of every half, direction and setting, by bank."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[float, BankCheck]]] = {}

    def gains_of(
        self, parts: list[dict[str, Direction]], name: str, bank: str, method: str, check: bool
    ) -> np.ndarray:
        """Return the gains of every half and setting of a method, (halves, settings, 2)."""
        grid = GRIDS[method]
        gains = np.empty((len(parts), len(grid), 2))
        for i, part in enumerate(parts):
            for j, options in enumerate(grid):
                reranker = part[name].fitted(method, options, bank)
                gains[i, j] = part[name].gain(reranker)
                if check and bank != OWN:
                    case = (gains[i, j, 1], reranker.check(part[name].scores))
                    self.found.setdefault(bank, []).append(case)
        return gains

    def print_signs(self) -> None:
        """Print each sign's rank correlation with the gain and how often it is right."""
        for bank, cases in self.found.items():
            gain = np.array([gain for gain, _ in cases])
            checks = [check for _, check in cases]
            values = {
                "skew falls": [c.skew_before - c.skew_after for c in checks],
                "more of the gallery found": [c.found_after - c.found_before for c in checks],
            }
            print(f"{bank}: {len(gain)} cases, {np.mean(gain > 0):.0%} gain")
            for name, value in values.items():
                same = np.mean((np.array(value) > 0) == (gain > 0))
                correlation = np.corrcoef(*(np.argsort(np.argsort(x)) for x in (value, gain)))[0, 1]
                print(f"{name}: rank correlation {correlation:.2f}, right in {same:.0%}")


def study(parts: list[dict[str, Direction]], cases: Cases, check: bool) -> None:
    """Print gains by bank and method."""
    rows = []
    for bank in parts[0]["I2T"].banks:
        for method, grid in GRIDS.items():
            row: dict[str, Any] = {"bank": bank, "method": method}
            total, chosen = 0.0, []
            for name in ("I2T", "T2I"):
                gains = cases.gains_of(parts, name, bank, method, check)
                best = gains[:, :, 1].argmax(axis=1)[::-1]  # chosen on the other half
                reported = np.mean([gains[i, best[i]] for i in range(len(parts))], axis=0)
                row[f"{name} R@1"] = f"{reported[0]:+.1f}"
                row[f"{name} sum"] = f"{reported[1]:+.1f}"
                total += reported[1]
                chosen += [grid[j] for j in best]
            row["Rsum"] = f"{total:+.1f}"
            row["options, I2T, T2I"] = "; ".join(str(tuple(o.values())) for o in chosen)
            rows.append(row)
    print(markdown_table(Table("", rows, digits=1)), flush=True)


def check_also(cases: Cases, name: str, sim: str, owners: str) -> None:
    """Add the cases of another matrix, with the bank of its other half, and print their gains."""
    parts = halves({"val": np.load(sim), "own": np.load(owners)})
    every = [
        cases.gains_of(parts, direction, OTHER, method, True)[:, :, 1].flatten()
        for direction in ("I2T", "T2I")
        for method in GRIDS
    ]
    gain = np.concatenate(every)
    print(f"{name}: {len(gain)} cases, {np.mean(gain > 0):.0%} gain, mean {gain.mean():+.1f}")


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--matrices", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cache_dir", help="features of the run, as its --cache_dir")
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--also", nargs=3, action="append", default=[], metavar=("NAME", "SIM", "MAP")
    )
    args = parser.parse_args()
    cases = Cases()
    study(halves(matrices_of(args.matrices, args.run, args.cache_dir)), cases, args.check)
    for matrix in args.also:
        check_also(cases, *matrix)
    cases.print_signs()


if __name__ == "__main__":
    main()
