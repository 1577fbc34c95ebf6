"""The command ``ascl``: one sub-command for each thing one does without writing Python."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ascl_plugin import registry
from ascl_plugin._version import __version__
from ascl_plugin.commands.demo import add_demo
from ascl_plugin.commands.evaluate import add_evaluate
from ascl_plugin.commands.experiment import add_experiment
from ascl_plugin.commands.report import add_report
from ascl_plugin.commands.rerank import add_rerank
from ascl_plugin.report.tables import markdown_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``ascl``; None: those of the process.

    Returns:
        0, or 2 after a user's error, of which one line is written to stderr. A wrong option leaves
        through argparse's SystemExit, with code 2 as well.
    """
    args = _parser().parse_args(argv)
    args.words = list(sys.argv[1:] if argv is None else argv)  # a result says how it was made
    try:
        return args.run(args)
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        print(f"ascl: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _components(args: argparse.Namespace) -> int:
    rows = [
        {"kind": kind, "names": ", ".join(registry.available(kind))} for kind in registry.kinds()
    ]
    print(markdown_table(rows))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ascl_plugin.adapters.regions.convert import convert

    written = convert(
        args.source, args.target, args.format, args.num_regions, lambda text: print(f"note: {text}")
    )
    print(f"wrote {args.target}, {written} images")
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:  # str() of it is a repr
        return " ".join(str(error.args[0]).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascl", description="Asymmetry-sensitive image-text retrieval."
    )
    parser.add_argument("--version", action="version", version=f"ascl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    components = commands.add_parser(
        "components", help="list every registered component", description="List the components."
    )
    components.set_defaults(run=_components)
    add_rerank(commands)
    add_report(commands)
    add_evaluate(commands)
    _add_convert(commands)
    add_demo(commands)
    add_experiment(commands)
    return parser


def _add_convert(commands: Any) -> None:
    command = commands.add_parser(
        "convert",
        help="region features from one file format to another",
        description="Copy region features of images into another format, byte for byte. Stopped "
        "and started again, it goes on where it was.",
    )
    command.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="X_ims.npy, .tsv, .h5, .hdf5, a folder of these, or one of .npy or .npz an image",
    )
    command.add_argument("target", type=Path, metavar="TARGET", help="a name that is still free")
    command.add_argument(
        "--format",
        choices=["hdf5", "hdf5-images", "tsv", "scan", "folder"],
        help="(default: as TARGET is called: .h5 or .hdf5: hdf5; .tsv; X_ims.npy: scan; no suffix: "
        "folder)",
    )
    command.add_argument(
        "--num_regions", type=int, metavar="K", help="the first K regions of each (default: all)"
    )
    command.set_defaults(run=_convert)


if __name__ == "__main__":
    sys.exit(main())
