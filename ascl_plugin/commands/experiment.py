"""``ascl experiment``: run the experiments of a study; what is finished is not run again."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from ascl_plugin.experiments.plan import EXPERIMENTS


def add_experiment(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "experiment",
        description="Run experiments of a study: train the models they need, measure, write tables "
        "and figures. Finished runs and measurements are kept, so a stopped study can be resumed.",
    )
    command.add_argument(
        "names", nargs="+", metavar="NAME", choices=["all", *EXPERIMENTS],
        help=f"all (every experiment that the study lists), or any of: {', '.join(EXPERIMENTS)}",
    )  # fmt: skip
    command.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="STUDY.yaml",
        help="or the name of one that comes along: scenes, flickr8k",
    )
    command.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--jobs", type=int, default=1, help="runs trained at the same time (default: %(default)s)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of every run, in place of the study's: data_root=DIR; may be repeated",
    )
    command.add_argument("--seeds", type=int, nargs="+", help="(default: the study's)")
    command.set_defaults(run=_experiment)


def _experiment(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from ascl_plugin.experiments.plan import read_plan
    from ascl_plugin.experiments.study import Study
    from ascl_plugin.training.parsing import CONFIGS
    from ascl_plugin.yaml_file import named, parse_yaml

    plan = read_plan(named(args.config, CONFIGS.parent / "experiments"))
    given = {}
    for word in args.set:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--set {word}: expected NAME=VALUE")
        given[name] = parse_yaml(value, f"--set {name}")
    plan = replace(plan, options={**plan.options, **given}, seeds=args.seeds or plan.seeds)
    names = [
        n for n in EXPERIMENTS if n in args.names or ("all" in args.names and n in plan.experiments)
    ]
    if not names:
        raise ValueError(f"{args.config}: lists no experiments")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command = shlex.join(["ascl", *map(str, args.words)])
    study = Study(plan, args.output_dir, max(1, args.jobs), command)
    needed = [
        (model, seed) for seed in plan.seeds for name in names for model in plan.models_of(name)
    ]
    study.runs.train(needed)
    for name in names:
        print(f"\n{study.run(name)}", flush=True)
    print(f"results in {args.output_dir}")
    return 0
