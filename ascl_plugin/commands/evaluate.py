"""``ascl evaluate``: recall of a trained model on a split, after an audit of its scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from ascl_plugin.commands.open_model import add_model_options, find_run, open_split


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "evaluate",
        help="recall of a trained model on a split",
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
    command.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write too")
    command.set_defaults(run=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    """Evaluate a saved model on a split of its own data, or of another data root."""
    from ascl_plugin.disk import write_json
    from ascl_plugin.report.terminal import print_results
    from ascl_plugin.retrieval.audit import AuditError
    from ascl_plugin.retrieval.evaluator import without_labels

    run = find_run(args.model)
    rerank_options = without_labels(run.rerank_options, args.oracle) if args.rerank else None
    evaluator, rows = open_split(args, run)
    try:
        results = evaluator.evaluate(
            rows, rerank_options, args.oracle, args.protocol, args.ci, audited=True
        )
    except AuditError as error:
        raise ValueError(f"the audit of the scores failed, no number is printed: {error}") from None
    print_results(results, f"{args.split}, {len(rows)} images, protocol {args.protocol}")
    if args.output is not None:
        write_json(args.output, {"split": args.split, **results.to_dict()})
    return 0
