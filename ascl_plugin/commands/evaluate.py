"""``ascl evaluate``: recall of a trained model on a split, after an audit of its scores.

With ``--suite``, contests of texts in place of recall.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ascl_plugin.commands.open_model import (
    SavedModel,
    add_model_options,
    find_run,
    open_evaluator,
    open_split,
)

if TYPE_CHECKING:
    from ascl_plugin.interfaces import Rows
    from ascl_plugin.retrieval.evaluator import Evaluator

_FAILED = "the audit of the scores failed, no number is printed: {}"


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "evaluate",
        description="Score a split with a trained model and print its recall. First the scores are "
        "audited on a sample: a score that depends on more than its image and text is an error.",
    )
    add_model_options(command)
    command.add_argument(
        "--rerank",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="add a row after re-ranking (default: yes)",
    )
    command.add_argument(
        "--oracle",
        action="store_true",
        help="add a row re-ranked with the labels as neighbors of a text: a leak, not a method, to "
        "reproduce published tables; its row says so",
    )
    command.add_argument(
        "--protocol",
        choices=["full", "coco_1k", "paired"],
        default="full",
        help="full: every query against the whole split; coco_1k: the mean of five folds of 1,000 "
        "images; paired: full, and a row of the published scores, in which a caption has seen its "
        "own image: a leak, and its row says so (default: %(default)s)",
    )
    command.add_argument(
        "--ci",
        action="store_true",
        help="add 95%% intervals, by bootstrap over the images with their captions",
    )
    command.add_argument(
        "--suite",
        choices=["variants", "balanced", "sugarcrepe"],
        help="contests of texts in place of recall, each beside its blind accuracy, with the mean "
        "image for each image; variants: captions of the split against false ones; balanced: two "
        "texts and two images of the split, which cannot be won blind; sugarcrepe: --path",
    )
    command.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        help="folder or file of SugarCrepe's layout; its images lie in --image_root",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write too")
    command.set_defaults(run=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    """Evaluate a saved model on a split of its own data, or of another data root."""
    from ascl_plugin.disk import write_json
    from ascl_plugin.report.terminal import print_results
    from ascl_plugin.retrieval.audit import AuditError
    from ascl_plugin.retrieval.evaluator import without_labels

    run = find_run(args.model)
    if (args.path is None) == (args.suite == "sugarcrepe"):
        raise ValueError("--suite sugarcrepe needs --path DIR, and nothing else takes --path")
    if args.suite is not None:
        return _suite(args, run)
    wanted = args.rerank and run.rerank_options.get("k") != 0
    rerank_options = without_labels(run.rerank_options, args.oracle) if wanted else None
    evaluator, rows = open_split(args, run)
    try:
        results = evaluator.evaluate(
            rows, rerank_options, args.oracle, args.protocol, args.ci, audited=True
        )
    except AuditError as error:
        raise ValueError(_FAILED.format(error)) from None
    print_results(results, f"{args.split}, {len(rows)} images, protocol {args.protocol}")
    if args.output is not None:
        write_json(args.output, {"split": args.split, **results.to_dict()})
    return 0


def _suite(args: argparse.Namespace, run: SavedModel) -> int:
    """Print a benchmark of texts, and write it if the options say so."""
    from ascl_plugin.data.sugarcrepe import read_sugarcrepe
    from ascl_plugin.disk import write_json
    from ascl_plugin.report.table import Cell, Table, markdown_table
    from ascl_plugin.report.terminal import print_contests
    from ascl_plugin.retrieval import asymmetry_benchmark as benchmarks
    from ascl_plugin.retrieval.suites import balanced_of, variants_of

    found: dict[str, dict[str, float]]
    if args.suite == "sugarcrepe":
        pairs = read_sugarcrepe(args.path, args.image_root)
        found = benchmarks.sugarcrepe_benchmark(open_evaluator(args, run), pairs)
        print(f"\nSugarCrepe of {args.path}")
        print_contests(found)
    else:
        evaluator, rows = open_split(args, run)
        _audit(evaluator, rows)
        print(f"\n{args.suite} of {args.split}, {len(rows)} images")
        if args.suite == "variants":
            found = benchmarks.variant_benchmark(evaluator, rows, variants_of(rows))["negatives"]
            print_contests(found)
        else:
            found = benchmarks.balanced_benchmark(evaluator, rows, balanced_of(rows))
            cells: list[dict[str, Cell]] = [
                {"percent": kind, **one, "count": int(one["count"])} for kind, one in found.items()
            ]
            print(f"\n{markdown_table(Table('', cells, 1))}", flush=True)
    if args.output is not None:
        about = {"split": args.split} if args.path is None else {"path": str(args.path)}
        write_json(args.output, {"suite": args.suite, **about, "results": found})
    return 0


def _audit(evaluator: Evaluator, rows: Rows) -> None:
    """Audit the scorer on a sample of a split.

    Raises:
        ValueError: the audit failed.
    """
    import torch

    from ascl_plugin.data.rows import caption_to_image
    from ascl_plugin.retrieval.audit import AuditError, SplitAudit

    texts, index = caption_to_image(rows)
    try:
        SplitAudit(evaluator, rows, texts, torch.from_numpy(index)).check_scorer()
    except AuditError as error:
        raise ValueError(_FAILED.format(error)) from None
