"""The command ``ascl``: sub-commands for work that needs no Python.

A sub-command is imported when it is asked for, and imports what it needs when it runs: help comes
at once, without torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from ascl_plugin import registry
from ascl_plugin._version import __version__
from ascl_plugin.spelling import did_you_mean

# Name of a sub-command to its line in the help. Its module adds it, by `add_NAME(commands)`.
COMMANDS = {
    "rerank": "re-rank a similarity matrix in a file",
    "evaluate": "recall of a trained model on a split",
    "report": "one page on runs and experiments",
    "demo": "search with a trained model on a local page",
    "experiment": "run the papers' experiments on any data",
    "convert": "pack region features into one HDF5 file",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: the words after ``ascl``; None: those of the process.

    Returns:
        0, or 2 after a user's error, which is printed to stderr in one line. A wrong option raises
        SystemExit(2), as argparse does.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"]:
        return _train(words[1:])
    args = _parser(words[:1]).parse_args(words)
    args.words = words  # results record their command
    try:
        return args.run(args)
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        print(f"ascl: error: {_one_line(error)}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """A parser that takes ``--data-root`` for ``--data_root``; its sub-commands do as well.

    A wrong option is one line, with the nearest name, and not the usage.
    """

    def error(self, message: str) -> NoReturn:
        """Print the message and where there is more; exit with 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # as in argparse
        """Parse words, dashes in the names of options read as underscores."""
        known = {name.replace("_", "-"): name for name in self._option_string_actions}
        words = list(sys.argv[1:] if args is None else args)
        for place, word in enumerate(words):
            if word == "--":
                break
            name, equals, value = word.partition("=")
            if name.startswith("--"):
                words[place] = known.get(name.replace("_", "-"), name) + equals + value
        found, unknown = super().parse_known_args(words, namespace)
        for word in unknown:
            if word.startswith("--"):  # here, for the parser above knows no option of a sub-command
                name = word.partition("=")[0]
                self.error(f"no option {name}" + did_you_mean(name, self._option_string_actions))
        return found, unknown


def _parser(asked: list[str]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="ascl", description="Asymmetry-sensitive image-text retrieval."
    )
    parser.add_argument("--version", action="version", version=f"ascl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="train a model on your data, or on drawn scenes")
    for name, line in COMMANDS.items():
        if name in asked:
            getattr(import_module(f"ascl_plugin.commands.{name}"), f"add_{name}")(commands)
        else:
            commands.add_parser(name, help=line)
    components = commands.add_parser(
        "components",
        help="list the registered components",
        description="List the registered components by kind.",
    )
    components.set_defaults(run=_components)
    return parser


def _train(words: list[str]) -> int:
    """Run the recipe, which reads its own options."""
    try:
        from ascl_plugin.training.recipe import main as train
    except ImportError as error:
        print(f"ascl: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return train(words)


def _components(args: argparse.Namespace) -> int:
    for kind in registry.kinds():
        print(f"{kind}: {', '.join(registry.available(kind))}")
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:  # str() of a KeyError adds quotes
        return " ".join(str(error.args[0]).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
