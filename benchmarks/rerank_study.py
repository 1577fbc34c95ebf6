"""Tables and plots of the options of `rerank` on score matrices of trained models.

    python benchmarks/rerank_study.py --plots docs/images \\
        --halves "Flickr8k linear" val.npy val_caption_to_image.npy \\
        --splits "scenes" val.npy val_caption_to_image.npy test.npy test_caption_to_image.npy

Options are chosen on the first half of the images and their captions (``--halves``) or on the first
of two matrices (``--splits``), and reported on the other. Matrices are (images, texts) in files as
`ascl rerank` reads them; both arguments can be given many times. Needs matplotlib for the plots:
``pip install "ascl-plugin[report]"``.

Printed: the option sets of the bidirectional method that lose nowhere, the default by matrix, and
every method with the options that gain most Rsum where they are chosen, losses allowed.
``--only_methods`` prints the latter alone.
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
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.metrics.statistics import paired_test
from ascl_plugin.report.table import Table, markdown_table
from ascl_plugin.reranking import Tuned, rerank, tune_rerank
from ascl_plugin.reranking.tune import GRIDS

SHOWN = {"i2t_r1": "I2T R@1", "t2i_r1": "T2I R@1", "rsum": "Rsum"}
GRID: dict[str, Sequence[Any]] = {
    "k": (5, 10, 20, 50, 100),
    "reverse_k": (None, 20, 50),
    "text_neighbors": (1, 2, 3, 5),
    "mix": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}
# one option at a time: its values, and what the left and the right half of a plot hold fixed
SWEEPS: dict[str, tuple[Sequence[Any], dict[str, Any], dict[str, Any]]] = {
    "k": ((2, 5, 10, 20, 50, 100, 200), {}, {"mix": 0.4}),
    "text_neighbors": ((1, 2, 3, 4, 5, 8), {"k": 20}, {"k": 20, "mix": 0.4}),
    "mix": (np.linspace(0, 1, 11).round(1).tolist(), {"k": 20}, {"k": 50}),
}


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

    def gain(self, options: Mapping[str, Any]) -> dict[str, float]:
        """Return the change of every metric, in points."""
        before = retrieval_metrics(self.sim, self.owners)
        found = rerank(self.sim, **options)
        after = retrieval_metrics(found.i2t, self.owners, t2i=found.t2i)
        return {name: after[name] - before[name] for name in before}


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


def gains(trials: Tuned) -> list[dict[str, float]]:
    """Return the gain of every trial against the first, which re-ranks nothing."""
    before = trials.trials[0].metrics
    return [{name: t.metrics[name] - before[name] for name in SHOWN} for t in trials.trials]


def words(options: Mapping[str, Any]) -> str:
    """Return options as a readable text."""
    return ", ".join(f"{n}={v}" for n, v in options.items() if v is not None and n != "method")


def never_losing(cases: Sequence[Case], top: int, max_loss: float) -> None:
    """Print option sets by mean gain of Rsum; first those that lose R@1 in no matrix."""
    tuned = [tune_rerank(c.chosen.sim, c.chosen.owners, GRID) for c in cases]
    rows = []
    for trial, *by_case in zip(tuned[0].trials, *map(gains, tuned), strict=True):
        r1 = [g[name] for g in by_case for name in ("i2t_r1", "t2i_r1")]
        mean = {title: float(np.mean([g[n] for g in by_case])) for n, title in SHOWN.items()}
        rows.append(
            trial.options
            | {"worst R@1": min(r1), "matrices that lose": sum(x < -max_loss - 1e-9 for x in r1)}
            | {f"mean {title}": value for title, value in mean.items()}
        )
    rows = rows[1:]
    good = [row for row in rows if not row["matrices that lose"]]
    print(f"\n### {len(good)} of {len(rows)} option sets lose at most {max_loss} R@1 everywhere\n")
    ranked = sorted(rows, key=lambda row: -row["mean Rsum"])
    order = [row for row in ranked if row in good][:top]
    plain = {"reverse_k": None, "text_neighbors": 1, "mix": 0.0}
    order += [row for row in rows if plain.items() <= row.items()]
    for count in GRID["text_neighbors"]:  # the best of each, losing or not
        order.append(next(row for row in ranked if row["text_neighbors"] == count))
    shown = [row for i, row in enumerate(order) if row not in order[:i]]
    shown = [row | {"reverse_k": row["reverse_k"] or "none"} for row in shown]
    print(markdown_table(Table("", shown, digits=1)))
    for name, values in GRID.items():
        counts = {v: sum(row[name] == v for row in good) for v in values}
        print(f"\n{name} of those that never lose:", counts)


def by_matrix(cases: Sequence[Case]) -> None:
    """Print gains of the default and of tuned options, on matrices where nothing is chosen."""
    rows = []
    for case in cases:
        part = case.reported
        before = retrieval_metrics(part.sim, part.owners)
        tuned = tune_rerank(case.chosen.sim, case.chosen.owners, method="bidirectional")
        found: dict[str, dict[str, Any]] = {"default": {}, "tuned": tuned.options}
        rows.append({"": case.name} | {title: before[n] for n, title in SHOWN.items()})
        for name, chosen in found.items():
            gain = part.gain(chosen)
            rows[-1] |= {f"{name}: {title}": f"{gain[n]:+.1f}" for n, title in SHOWN.items()}
        rows[-1]["tuned options"] = words(tuned.options) or "none"
    print("\n### By matrix: recall before, change by the default, change by tuned options\n")
    print(markdown_table(Table("", rows, digits=1)))


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


def plot(cases: Sequence[Case], folder: Path) -> None:
    """Plot the change of R@1 by one option at a time, on matrices where nothing is chosen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "rerank", "svg.fonttype": "none", "font.size": 9})
    colours = {case.name: f"C{i}" for i, case in enumerate(cases)}
    for option, (values, first, second) in SWEEPS.items():
        figure, axes = plt.subplots(2, 2, figsize=(7.5, 5), sharex=True, layout="constrained")
        for fixed, column in ((first, 0), (second, 1)):
            title = {"text_neighbors": 1, "mix": 0.0} | fixed
            title.pop(option, None)
            axes[0, column].set_title(words(title))
            for case in cases:
                part = case.reported
                grid = [title | {option: value} for value in values]
                found = gains(tune_rerank(part.sim, part.owners, grid))[1:]
                for row, name in enumerate(("i2t_r1", "t2i_r1")):
                    axes[row, column].plot(
                        values, [g[name] for g in found], lw=1, color=colours[case.name]
                    )
        for axis in axes.flat:
            axis.axhline(0, color="black", lw=0.8)
            axis.grid(alpha=0.3)
        for row, name in enumerate(("I2T", "T2I")):
            axes[row, 0].set_ylabel(f"{name} R@1, change")
        for axis in axes[1]:
            axis.set_xlabel(option)
        if option == "k":
            axes[1, 0].set_xscale("log")
        figure.legend(
            [plt.Line2D([], [], color=c) for c in colours.values()],
            list(colours),
            loc="outside right upper",
        )
        figure.savefig(folder / f"rerank_{option}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Print tables, write plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, files in (("--halves", ("SIM", "MAP")), ("--splits", ("SIM", "MAP", "SIM2", "MAP2"))):
        names = ("NAME", *files)
        parser.add_argument(name, nargs=len(names), action="append", default=[], metavar=names)
    parser.add_argument("--max_loss", type=float, default=0.1, help="of R@1, for a set to qualify")
    parser.add_argument("--top", type=int, default=4, help="option sets to print")
    parser.add_argument("--plots", type=Path, default=Path(), help="folder")
    parser.add_argument(
        "--only_methods", action="store_true", help="the tables of all methods alone"
    )
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    cases = cases_of(args)
    if args.only_methods:
        all_methods(cases)
        return
    never_losing(cases, args.top, args.max_loss)
    by_matrix(cases)
    all_methods(cases)
    plot(cases, args.plots)


if __name__ == "__main__":
    main()
