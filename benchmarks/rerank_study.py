"""All re-ranking methods on score matrices of trained models: gains, intervals, chosen options.

    python benchmarks/rerank_study.py \\
        --halves "Flickr8k linear" val.npy val_caption_to_image.npy \\
        --splits "scenes start" val.npy val_caption_to_image.npy test.npy test_caption_to_image.npy

Options are chosen on the first half of the images and their captions (``--halves``) or on the first
of two matrices (``--splits``), by Rsum, losses allowed, and reported on the other. Matrices are
(images, texts) in files as `ascl rerank` reads them; both arguments can be given many times. A
table is of the matrices whose names begin with the same word, which must be of the same images.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ascl_plugin.commands.score_files import read_array, read_caption_to_image
from ascl_plugin.metrics.protocols import QueryResults, query_results
from ascl_plugin.metrics.statistics import paired_test
from ascl_plugin.report.table import Table, markdown_table
from ascl_plugin.reranking import rerank, tune_rerank
from ascl_plugin.reranking.tune import GRIDS

SHOWN = {"i2t_r1": "I2T R@1", "t2i_r1": "T2I R@1", "rsum": "Rsum"}


@dataclass
class Scores:
    """A matrix (I, T) and the image of each caption (T,)."""

    sim: np.ndarray
    owners: np.ndarray

    def images(self, first: int, last: int) -> Scores:
        """Return a range of images with their captions."""
        own = np.flatnonzero((self.owners >= first) & (self.owners < last))
        return Scores(np.ascontiguousarray(self.sim[first:last][:, own]), self.owners[own] - first)

    def results(self, options: Mapping[str, Any]) -> QueryResults:
        """Return the ranks after re-ranking."""
        found = rerank(self.sim, **options)
        return query_results(found.i2t, self.owners, t2i=found.t2i)


@dataclass
class Case:
    """The scores of one model that options are chosen on, and those they are reported on."""

    name: str
    chosen: Scores
    reported: Scores


def read(sim: str, owners: str) -> Scores:
    """Read a matrix and its pairing from two files."""
    return Scores(np.asarray(read_array(Path(sim), "sim")), read_caption_to_image(Path(owners)))


def cases_of(args: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line names."""
    cases = []
    for name, sim, owners in args.halves:
        whole = read(sim, owners)
        half = len(whole.sim) // 2
        cases.append(Case(name, whole.images(0, half), whole.images(half, len(whole.sim))))
    cases += [Case(n, read(a, b), read(c, d)) for n, a, b, c, d in args.splits]
    return cases


def words(options: Mapping[str, Any]) -> str:
    """Return options as a readable text."""
    return ", ".join(f"{n}={v}" for n, v in options.items() if v is not None and n != "method")


def all_methods(cases: Sequence[Case]) -> None:
    """Print mean change, its interval, worst R@1 and chosen options, by group of matrices.

    A group is the matrices whose names begin with the same word; the interval is of the mean over
    them, by bootstrap over the images, so a group must be of the same images.
    """
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.name.replace(",", " ").split()[0], []).append(case)
    for group, members in groups.items():
        initial = [query_results(c.reported.sim, c.reported.owners) for c in members]
        mean = np.mean([[q.metrics()[n] for n in SHOWN] for q in initial], axis=0).round(1)
        rows = []
        for method in ("bidirectional", *(m for m in GRIDS if m != "bidirectional")):
            chosen = [
                tune_rerank(
                    c.chosen.sim, c.chosen.owners, max_loss=100, allow_uncertain=True, method=method
                ).options
                for c in members
            ]
            after = [
                c.reported.results(options) for c, options in zip(members, chosen, strict=True)
            ]
            plain = [c.reported.results({"method": method}) for c in members]
            change, untuned = paired_test(initial, after), paired_test(initial, plain)
            rows.append(
                {"method": method} | {t: f"{change[n].value:+.1f}" for n, t in SHOWN.items()}
            )
            rsum = change["rsum"]
            rows[-1]["95 %"] = f"{rsum.low:+.1f} to {rsum.high:+.1f}"
            pairs = [(q.metrics(), r.metrics()) for q, r in zip(initial, after, strict=True)]
            worst = min(r[n] - q[n] for q, r in pairs for n in ("i2t_r1", "t2i_r1"))
            rows[-1] |= {
                "worst R@1": f"{worst:+.1f}",
                "Rsum, untuned": f"{untuned['rsum'].value:+.1f}",
            }
            picked = dict.fromkeys(words(options) or "none gains" for options in chosen)
            rows[-1]["options chosen"] = "; ".join(picked)
        print(f"\n### All methods, {group}: {len(members)} matrices, before {mean.tolist()}\n")
        print(markdown_table(Table("", rows, digits=1)), flush=True)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, files in (("--halves", ("SIM", "MAP")), ("--splits", ("SIM", "MAP", "SIM2", "MAP2"))):
        names = ("NAME", *files)
        parser.add_argument(name, nargs=len(names), action="append", default=[], metavar=names)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    all_methods(cases_of(args))


if __name__ == "__main__":
    main()
