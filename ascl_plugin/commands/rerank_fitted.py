"""``ascl rerank --fit`` and ``--apply``: a `Reranker` in a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ascl_plugin.commands.score_files import check_suffix, read_array, write_reranked
from ascl_plugin.reranking.reranker import Reranker

METHOD = "inverted_softmax"  # default of --fit


def add_fitted(command: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = command.add_argument_group(
        "one query at a time",
        "Learn from scores of a bank of other queries, then correct the scores of any query with "
        "the same gallery. Rows are queries and columns the gallery, in either direction.",
    )
    group.add_argument(
        "--fit", type=Path, metavar="BANK", help="(bank queries, gallery) scores to learn from"
    )
    group.add_argument(
        "--save", type=Path, metavar="FILE", help="with --fit: the safetensors file to write"
    )
    group.add_argument(
        "--apply",
        type=Path,
        metavar="FILE",
        help="file of --save: correct SIMS, (queries, gallery), and write one array to OUT",
    )


def run_fitted(
    args: argparse.Namespace, options: dict[str, object], output: Path | None
) -> int | None:
    """Run --fit or --apply; return None if neither is given.

    Raises:
        FileExistsError: a file to write is there and --overwrite is not given.
        ValueError: options that do not go together; those of `Reranker`.
    """
    if args.fit is None and args.apply is None:
        if args.save is not None:
            raise ValueError("--save goes with --fit BANK")
        if args.sims is None:
            raise ValueError("give SIMS, a file of scores, or --fit BANK --save FILE")
        return None
    if args.tune or args.method == "all" or args.captions_per_image or args.caption_to_image:
        raise ValueError("--fit and --apply take no --tune, --method all or pairing: leave it out")
    if args.fit is not None:
        if args.save is None or args.apply is not None or args.sims is not None:
            raise ValueError("--fit BANK goes with --save FILE alone; --apply is a call of its own")
        _refuse_overwriting(args.save, args.overwrite)
        reranker = Reranker(args.method or METHOD, **options)
        print(f"wrote {args.save}: {_fitted(reranker, args.fit, args.save)}")
        return 0
    if args.sims is None or args.save is not None or args.method or options:
        raise ValueError("--apply FILE goes with SIMS; method and options are in FILE")
    output = output or args.sims.with_suffix(f".reranked{args.sims.suffix}")
    check_suffix(output)
    _refuse_overwriting(output, args.overwrite)
    result = Reranker.load(args.apply).transform(read_array(args.sims, "sim"))
    for path in write_reranked(output, {"sim": result}):
        print(f"wrote {path}")
    return 0


def _fitted(reranker: Reranker, bank: Path, path: Path) -> Reranker:
    reranker.fit(read_array(bank, "bank")).save(path)
    return reranker


def _refuse_overwriting(path: Path, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write to")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; --overwrite replaces it")
