"""``ascl rerank``: re-rank a matrix in a file, compare the methods on it, or choose options."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from ascl_plugin import registry
from ascl_plugin.commands.rerank_fitted import METHOD, add_fitted, run_fitted
from ascl_plugin.commands.score_files import (
    SUFFIXES,
    check_suffix,
    read_array,
    read_caption_to_image,
    reranked_files,
    write_reranked,
)
from ascl_plugin.disk import write_text
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.metrics.result_row import ResultRow
from ascl_plugin.reranking.methods import Reranked, find_method, rerank
from ascl_plugin.reranking.options import ARRAYS, RerankOptions, options_of
from ascl_plugin.reranking.tune import tune_rerank
from ascl_plugin.scores import Array, as_tensor, check_scores
from ascl_plugin.scoring.matrix_file import caption_map_beside

_MEANING = {
    "k": "number of first results of each query to reorder",
    "reverse_k": "positions from this one on count as equal; not given: no limit",
    "text_neighbors": "number of texts whose positions count for a text, itself included",
    "mix": "0 to 1, weight of the initial rank beside the reverse position",
    "temperature": "of the softmax, in units of the score",
    "neighbors": "number of scores of the bank in a gallery item's mean",
    "alpha": "share of that mean that is subtracted",
    "activation_k": "number of first results of each query of the bank that count as hubs",
    "iterations": "number of times that gallery and queries are balanced",
    "gallery_temperature": "of the softmax over other gallery items",
    "other_items": "number of other gallery items in both banks",
    "distribution": "gaussian or empirical",
    "scaling": "gaussian or nicdm",
    "self_score": "score of two equal items",
    "k1": "length of the lists that are compared",
    "k2": "number of lists that are averaged",
    "initial_weight": "0 to 1, weight of the initial distance",
    "text_embeddings": "(texts, width), for neighbours of a text by cosine",
    "image_embeddings": "(images, width), for neighbours of an image by cosine",
    "bank_i2t": "(images of the bank, texts), scores of other images with the same texts",
    "bank_t2i": "(images, texts of the bank), scores of the same images with other texts",
}


def add_rerank(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command, with the options of all built-in methods."""
    formats = ", ".join(SUFFIXES)
    command = commands.add_parser(
        "rerank",
        description="Re-rank both directions of a similarity matrix (images, texts), from the "
        "scores alone. npz and safetensors results hold the arrays i2t and t2i; for npy there are "
        "two files, OUT.i2t.npy and OUT.t2i.npy. With a pairing, recall before and after is "
        "printed.",
    )
    command.add_argument(
        "sims",
        type=Path,
        nargs="?",
        metavar="SIMS",
        help=f"{formats}: the one array in it, or the one named 'sim'; npy is mapped, not read",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="result file, its suffix decides the format (default: SIMS with .reranked before the "
        "suffix); with --method all a Markdown file for the table (default: none)",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace result files that are there"
    )
    command.add_argument(
        "--method",
        choices=[*registry.available("rerank"), "all"],
        help="all: compare them in a table, which needs a pairing (default: bidirectional; with "
        f"--tune all, with --fit {METHOD})",
    )
    command.add_argument(
        "--tune",
        action="store_true",
        help="print the method and options that gain most on SIMS, which must be of a validation "
        "split and needs a pairing; nothing is written",
    )
    command.add_argument(
        "--allow_uncertain",
        action="store_true",
        help="with --tune: choose also where the interval of the gain contains zero",
    )
    pairing = command.add_mutually_exclusive_group()
    pairing.add_argument(
        "--caption_to_image",
        type=Path,
        metavar="FILE",
        help="image index of each caption: npy, or text with one integer a line (default: "
        "SIMS with .caption_to_image.npy as its suffix, if it is there)",
    )
    pairing.add_argument(
        "--captions_per_image",
        type=int,
        metavar="N",
        help="captions 0 to N-1 belong to image 0, the next N to image 1, ...",
    )
    add_fitted(command)
    options = command.add_argument_group("options of the methods, and their defaults there")
    for name, defaults in _defaults().items():
        value = next(iter(defaults.values()))
        where = ", ".join(f"{m}: {v}" if v is not None else m for m, v in defaults.items())
        options.add_argument(
            f"--{name}",
            type=Path if name in ARRAYS else int if value is None else type(value),
            metavar="FILE" if name in ARRAYS else None,
            help=f"{_MEANING[name]} ({where})",
        )
    command.set_defaults(run=_run)


def _defaults() -> dict[str, dict[str, Any]]:
    """Return option -> built-in method -> default; label groups are not an option of a command."""
    found: dict[str, dict[str, Any]] = {}
    for method in registry.BUILT_IN["rerank"]:
        for name, default in options_of(find_method(method)[1]).items():
            if name in _MEANING:
                found.setdefault(name, {})[method] = default
    return found


def _run(args: argparse.Namespace) -> int:
    given = {name: getattr(args, name) for name in _MEANING if getattr(args, name) is not None}
    done = run_fitted(args, given, args.output)
    if done is not None:
        return done
    output = _output(args)
    sim = _read(args.sims, "sim", "(images, texts)")
    for name in given.keys() & set(ARRAYS):
        given[name] = _read(given[name], name, _MEANING[name].partition("), ")[0] + ")")
    options = cast(RerankOptions, given)
    owners = _pairing(args, sim)
    if not args.tune and args.method != "all":
        method = args.method or "bidirectional"
        return _rerank(sim, owners, {"method": method, **options}, output)
    if owners is None:
        needing = "--tune" if args.tune else "--method all"
        raise ValueError(f"{needing} needs --caption_to_image or --captions_per_image")
    if args.tune:
        if args.method not in (None, "all"):
            options["method"] = args.method
        return _tune(sim, owners, options, args.allow_uncertain)
    return _compare(sim, owners, options, args.output)


def _rerank(sim: Array, owners: np.ndarray | None, options: RerankOptions, output: Path) -> int:
    from ascl_plugin.report.table import markdown_table, results_table

    # first, because it checks the pairing
    before = None if owners is None else retrieval_metrics(sim, owners)
    result = rerank(sim, **options)
    for path in write_reranked(output, {"i2t": result.i2t, "t2i": result.t2i}):
        print(f"wrote {path}")
    if before is not None and owners is not None:
        rows = [ResultRow("before", before), ResultRow("after", _recall(result, owners))]
        print(markdown_table(results_table(rows)))
        kind = "transductive" if result.transductive else "not transductive"
        print(f"\n{result.method} is {kind}")
    return 0


def _compare(sim: Array, owners: np.ndarray, options: RerankOptions, output: Path | None) -> int:
    """Print a table of every method, each with those of the options that it has."""
    from ascl_plugin.report.table import Cell, Table, markdown_table, result_cells

    rows: list[dict[str, Cell]] = []
    methods = registry.available("rerank")
    for method in sorted(methods, key=lambda name: (name != "none", name)):
        known = options_of(find_method(method)[1])
        own = {n: v for n, v in options.items() if n in known} | {"method": method}
        start = time.perf_counter()
        result = rerank(sim, **cast(RerankOptions, own))
        facts = {"transductive": result.transductive, "seconds": time.perf_counter() - start}
        rows.append({"method": method, **result_cells(_recall(result, owners)), **facts})
    table = markdown_table(Table("Methods", rows, digits=1))
    print(table)
    if output is not None:
        write_text(output, table + "\n")
        print(f"wrote {output}")
    return 0


def _tune(sim: Array, owners: np.ndarray, options: RerankOptions, allow_uncertain: bool) -> int:
    from ascl_plugin.report.table import markdown_table, results_table

    progress = find_spec("tqdm") is not None and sys.stderr.isatty()
    tuned = tune_rerank(sim, owners, progress=progress, allow_uncertain=allow_uncertain, **options)
    best = ResultRow("best, chosen here", tuned.best.metrics)
    before = ResultRow("before", tuned.trials[0].metrics)
    print("options:", *_words(tuned.options, options))
    print(markdown_table(results_table([before, best])))
    if tuned.gain is not None:
        gain = tuned.gain
        print(f"\ngain in Rsum: {gain.value:+.1f} (95 %: {gain.low:+.1f} to {gain.high:+.1f})")
    if tuned.refused:
        print(
            "the interval contains zero, so nothing is chosen; --allow_uncertain would choose "
            + " ".join(_words(tuned.best.options, options))
        )
    return 0


def _words(chosen: RerankOptions, given: RerankOptions) -> list[str]:
    """Return options as words of the command, with those of files that were given."""
    words = [f"--{name} {value}" for name, value in chosen.items() if value is not None]
    if chosen.get("method") != "none":
        words += [f"--{name} FILE" for name in ARRAYS if name in given]
    return words


def _recall(result: Reranked, owners: np.ndarray) -> dict[str, float]:
    return retrieval_metrics(result.i2t, owners, t2i=result.t2i)


def _output(args: argparse.Namespace) -> Path:
    """Return the result file, checked before any work."""
    output = args.output or args.sims.with_suffix(f".reranked{args.sims.suffix}")
    if args.method != "all":
        check_suffix(output)
    elif args.output and args.output.suffix != ".md":
        raise ValueError(f"{output}: --method all writes a table; give it a name that ends in .md")
    if args.tune and args.output:
        raise ValueError("--tune writes nothing: leave --output out")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder to write to")
    writes = not args.tune and (args.method != "all" or args.output is not None)
    for path in reranked_files(output) if writes and not args.overwrite else ():
        if path.exists():
            raise FileExistsError(f"{path} is there already; --overwrite replaces it")
    return output


def _read(path: Path, name: str, axes: str) -> Array:
    """Return array `name` of a file, checked here so that messages name the file."""
    values = read_array(path, name)
    check_scores(as_tensor(values, str(path), axes), str(path))
    return values


def _pairing(args: argparse.Namespace, sim: Array) -> np.ndarray | None:
    images, texts = sim.shape
    each = args.captions_per_image
    if each is not None:
        if each * images != texts:
            turned = each * texts == images
            cure = "it is (texts, images): write its transpose" if turned else "counts differ: "
            cure += "" if turned else "give --caption_to_image"
            raise ValueError(
                f"--captions_per_image {each}: {args.sims} has {images} images and {texts} texts; "
                f"{cure}"
            )
        return np.arange(texts) // each
    beside = caption_map_beside(args.sims)
    if args.caption_to_image is None and not beside.is_file():
        return None
    return read_caption_to_image(args.caption_to_image or beside)
