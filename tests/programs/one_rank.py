"""A program with a `main(argv)` as one rank of several; `run_ranks` starts it.

OUT/command.json holds the program and its arguments; OUT/RANK.pt takes its exit status, what it
printed, and its errors.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.distributed.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    program, *arguments = json.loads((out / "command.json").read_text())
    printed, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(errors):
        code = runpy.run_path(program)["main"](arguments)
    found = (code, printed.getvalue(), errors.getvalue())
    torch.save(found, out / f"{os.environ['RANK']}.pt")
