"""Programs as processes forked from one that has imported what they need, and has run nothing."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import context, get_context
from pathlib import Path

#: Imports take longer than most programs; a server without any of these forks the same programs.
PRELOADED = [
    "torch", "torch._dynamo",  # which the first optimizer imports
    "accelerate", "transformers", "datasets", "ascl_plugin.training.trainer",
]  # fmt: skip

forkserver = get_context("forkserver")
forkserver.set_forkserver_preload(PRELOADED)


def start(
    program: str | Path,
    arguments: Sequence[object],
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> context.ForkServerProcess:
    """Start `python PROGRAM ARGUMENTS` with variables added to the environment, on one thread.

    What it prints is appended to the file `output`, if that is given.
    """
    words = [str(argument) for argument in arguments]
    given = str(program), words, dict(environment or {}), output and str(output)
    process = forkserver.Process(target=_run, args=given)
    process.start()
    return process


def run(
    program: str | Path,
    arguments: Sequence[object],
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> tuple[int | None, str]:
    """Run a program to its end; return its exit status (None: after ten minutes), and its output.

    The output is that of the file, to which it is appended.
    """
    process = start(program, arguments, environment, output)
    process.join(600)
    code = process.exitcode
    process.kill()
    return code, output.read_text()


def _run(
    program: str, arguments: list[str], environment: dict[str, str], output: str | None
) -> None:
    import torch

    if output is not None:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.argv = [program, *arguments]
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="__main__")
