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
    from torch import Tensor

    from ascl_plugin.interfaces import Rows
    from ascl_plugin.retrieval.evaluator import Evaluator

# suites of the captions of a split, and of files; None: no suite
OF_SPLIT = (None, "variants", "balanced", "half_truths")
OF_FILES = (
    "sugarcrepe", "sugarcrepe_pp", "aro", "aro_order", "winoground", "negbench", "half_truths",
)  # fmt: skip
SUITES = (*OF_SPLIT[1:-1], *OF_FILES)
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
        choices=SUITES,
        help="contests of texts in place of recall, each beside its blind accuracy, with the mean "
        f"image for each image; of the split's captions: {', '.join(OF_SPLIT[1:])}; of files in "
        f"--path: {', '.join(OF_FILES)}",
    )
    command.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        help="folder or file of the suite; its images lie in --image_root, or else in the folder",
    )
    command.add_argument(
        "--run_file",
        type=Path,
        metavar="NAME",
        help="also write the first 100 of every query in TREC's layout, and the right answers, to "
        "NAME.i2t.run, NAME.i2t.qrels, NAME.t2i.run and NAME.t2i.qrels; before re-ranking",
    )
    command.add_argument(
        "--qrels",
        type=Path,
        metavar="FILE",
        help="right answers of a TREC run, anybody's, which is given in the place of the model: "
        "recall, nDCG@10 and MRR of it are printed",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="JSON file to write too")
    command.set_defaults(run=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    """Evaluate a saved model on a split of its own data, or of another data root."""
    from ascl_plugin.data.rows import caption_to_image
    from ascl_plugin.disk import write_json
    from ascl_plugin.report.terminal import print_results
    from ascl_plugin.retrieval.audit import AuditError
    from ascl_plugin.retrieval.evaluator import without_labels

    if args.qrels is not None:
        return _run_metrics(args)
    run = find_run(args.model)
    if args.suite not in (OF_SPLIT if args.path is None else OF_FILES):
        takes = "takes no" if args.suite in OF_SPLIT else "needs"
        raise ValueError(
            f"--suite {args.suite} {takes} --path DIR" if args.suite else "--path DIR needs --suite"
        )
    if args.suite is not None:
        return _suite(args, run)
    wanted = args.rerank and run.rerank_options.get("k") != 0
    rerank_options = without_labels(run.rerank_options, args.oracle) if wanted else None
    evaluator, rows = open_split(args, run)
    sim = None if args.run_file is None else evaluator.score(rows, caption_to_image(rows)[0])
    try:
        results = evaluator.evaluate(
            rows, rerank_options, args.oracle, args.protocol, args.ci, sim, audited=True
        )
    except AuditError as error:
        raise ValueError(_FAILED.format(error)) from None
    print_results(results, f"{args.split}, {len(rows)} images, protocol {args.protocol}")
    if sim is not None:
        _write_runs(args.run_file, sim, rows)
    if args.output is not None:
        write_json(args.output, {"split": args.split, **results.to_dict()})
    return 0


def _write_runs(name: Path, sim: Tensor, rows: Rows) -> None:
    """Write run and qrels files of both directions beside each other."""
    from ascl_plugin.metrics.trec import write_qrels, write_run

    images = rows["image_id"][:]
    captions = [text for several in rows["caption_ids"][:] for text in several]
    if len(set(captions)) < len(captions):  # numbers within their image
        counts = map(len, rows["caption_ids"][:])
        captions = [f"{i}#{k}" for i, n in zip(images, counts, strict=True) for k in range(n)]
    of = [i for i, own in zip(images, rows["captions"][:], strict=True) for _ in own]
    write_run(Path(f"{name}.i2t.run"), sim, images, captions)
    write_run(Path(f"{name}.t2i.run"), sim.T, captions, images)
    write_qrels(Path(f"{name}.i2t.qrels"), zip(of, captions, strict=True))
    write_qrels(Path(f"{name}.t2i.qrels"), zip(captions, of, strict=True))


def _run_metrics(args: argparse.Namespace) -> int:
    """Print the metrics of a run file, and write them if the options say so."""
    from ascl_plugin.disk import write_json
    from ascl_plugin.metrics.trec import read_qrels, read_run, run_metrics
    from ascl_plugin.report.table import Table, markdown_table

    if not Path(args.model).is_file():
        raise ValueError(
            f"--qrels goes with a run file in the place of the model, got {args.model}"
        )
    qrels = read_qrels(args.qrels)
    found = run_metrics(read_run(args.model), qrels)
    titles = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "ndcg10": "nDCG@10", "mrr": "MRR"}
    row = {"queries": len(qrels), **{titles[name]: value for name, value in found.items()}}
    print(f"\n{args.model}, percent\n\n{markdown_table(Table('', [row], 1))}\n", flush=True)
    if args.output is not None:
        write_json(args.output, {"run": str(args.model), "qrels": str(args.qrels), **found})
    return 0


def _suite(args: argparse.Namespace, run: SavedModel) -> int:
    """Print a benchmark of texts, and write it if the options say so."""
    from ascl_plugin.asymmetry.captions.balanced import KINDS
    from ascl_plugin.data.contests import LAYOUTS, read_contests
    from ascl_plugin.disk import write_json
    from ascl_plugin.report.terminal import print_balanced, print_contests
    from ascl_plugin.retrieval import suites
    from ascl_plugin.retrieval.asymmetry_benchmark import balanced_benchmark, variant_benchmark
    from ascl_plugin.retrieval.contest_benchmark import contest_benchmark, twin_pairs

    contests: dict[str, dict[str, float]] = {}
    balanced: dict[str, dict[str, float]] = {}
    if args.path is not None:
        kinds = read_contests(args.path, args.suite, args.image_root)
        evaluator = open_evaluator(args, run)
        print(f"\n{args.suite} of {args.path}")
        if len(LAYOUTS[args.suite].images) == 2:
            balanced = balanced_benchmark(evaluator, *twin_pairs(kinds))
        else:
            contests = contest_benchmark(evaluator, kinds)
    else:
        evaluator, rows = open_split(args, run)
        _audit(evaluator, rows)
        print(f"\n{args.suite} of {args.split}, {len(rows)} images")
        if args.suite == "variants":
            contests = variant_benchmark(evaluator, rows, suites.variants_of(rows))["negatives"]
        if args.suite == "half_truths":
            contests = contest_benchmark(evaluator, suites.half_truths_of(rows))
        if args.suite != "variants":
            some = ("added",) if args.suite == "half_truths" else KINDS
            balanced = balanced_benchmark(evaluator, rows, suites.balanced_of(rows, kinds=some))
    if contests:
        print_contests(contests)
    if balanced:
        print_balanced(balanced)
    if args.output is not None:
        about = {"split": args.split} if args.path is None else {"path": str(args.path)}
        found = {"contests": contests, "balanced": balanced}
        write_json(
            args.output, {"suite": args.suite, **about, **{k: v for k, v in found.items() if v}}
        )
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
