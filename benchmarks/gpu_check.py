"""Check the library on a GPU and time it: one command, under eight minutes, nothing lost if cut.

    python benchmarks/gpu_check.py --out results          # on a machine with an NVIDIA GPU
    python benchmarks/gpu_check.py --out results --toy    # all of it at toy size, also on a CPU

Each part runs in a process of its own, which is killed at the part's limit. Rows are written as
they come; a row that fails is written with its error, and the next one goes on. With --together
all parts run in one process, without limits: the imports are done once. In --out:
results.json (machine, rows, tracebacks), tables.md, log.txt. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
TOTAL = 480  # seconds of all parts
LIMITS = {  # seconds of each part; most need less
    "compile": 100, "kernels": 50, "library": 50, "scoring": 110, "step": 70, "rerank": 60,
    "open_clip": 50, "recipe": 100,
}  # fmt: skip
SLOWER = 10  # times these limits, at toy size on a CPU that others may use
PACKAGES = ("triton", "transformers", "accelerate", "timm", "datasets", "open_clip", "webdataset")


def machine() -> dict[str, Any]:
    """Return what figures depend on."""
    import torch

    found = {"device": "CPU", "torch": torch.__version__, "python": sys.version.split()[0]}
    if torch.cuda.is_available():
        found |= {"device": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return {**found, "cores": os.cpu_count(), "missing": ", ".join(lacking) or "nothing"}


def work(name: str, args: argparse.Namespace) -> None:
    """Run a part in this process; append its rows to `--out`/rows.jsonl."""
    sys.path.insert(0, str(ROOT / "tests" / "programs"))
    import gpu_parts
    import torch

    gc.freeze()  # what was imported: collections between the rows need not go through it
    device, started = "cuda" if torch.cuda.is_available() else "cpu", time.perf_counter()
    write = gpu_parts.partial(append, args.out)
    setting = gpu_parts.Setting(device, args.toy, args.limit, write)
    with setting.row("parts", part=name) as row:
        gpu_parts.PARTS[name](setting)
        row["seconds"] = time.perf_counter() - started


def append(out: Path, **line: Any) -> None:
    """Write a row, and the traceback if it failed."""
    with (out / "rows.jsonl").open("a") as file:
        print(json.dumps(line), file=file)


def watched(name: str, args: argparse.Namespace, limit: float, log: IO[str]) -> str | None:
    """Run a part in a process of its own, and kill it at the limit; return what went wrong."""
    print(f"== {name}", file=log, flush=True)
    command = [sys.executable, "-X", "faulthandler", __file__, "--part", name, "--out", args.out]
    command += ["--limit", limit, *["--toy"] * args.toy]
    child = subprocess.Popen(
        [str(word) for word in command], stdout=log, stderr=log, start_new_session=True
    )
    try:
        code = child.wait(limit)
        return f"ended with {code}, see log.txt" if code else None
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.3g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # and what it started
        child.wait()


def report(out: Path, about: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Write results.json and tables.md of the rows so far; return the tables, and all rows."""
    from ascl_plugin.report.table import Table, markdown_table

    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    text = [", ".join(f"{name} {value}" for name, value in about.items())]
    for table in dict.fromkeys(row["table"] for row in rows):
        chosen = [row["row"] for row in rows if row["table"] == table]
        text.append(f"**{table}**\n\n{markdown_table(Table(table, chosen))}")
    (out / "results.json").write_text(json.dumps({"machine": about, "rows": rows}, indent=1))
    (out / "tables.md").write_text("\n\n".join(text) + "\n")
    return "\n\n".join(text), rows


def main() -> int:
    """Run the parts and print their tables; return 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of results")
    parser.add_argument("--toy", action="store_true", help="toy sizes; always so without a GPU")
    parser.add_argument("--together", action="store_true", help="all parts in this process")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--part", choices=LIMITS, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    started = time.perf_counter()
    sys.path.insert(0, str(ROOT))  # the library need not be installed
    if args.part:
        work(args.part, args)
        return 0
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "rows.jsonl").unlink(missing_ok=True)
    about = machine()
    on_gpu = about["device"] != "CPU"
    args.toy, slower = args.toy or not on_gpu, 1 if on_gpu else SLOWER
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"}
    if not on_gpu:
        os.environ["TRITON_INTERPRET"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the part at work would live on
    with tempfile.TemporaryDirectory() as cache, (args.out / "log.txt").open("w") as log:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)  # what one part compiles, others find
        for name in args.parts:
            left = TOTAL * slower - (time.perf_counter() - started)
            limit = min(LIMITS[name] * slower, left)
            if args.together:
                args.limit, wrong = limit, None
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    work(name, args)
            else:
                wrong = watched(name, args, limit, log) if left > 5 else "no time left"
            if wrong is not None:
                append(args.out, table="parts", row={"part": name, "error": wrong})
            tables, rows = report(args.out, about)
            print(f"{time.perf_counter() - started:.0f} s: {name}, {wrong or 'done'}", flush=True)
    failed = [r for r in rows if "error" in r["row"] or r["row"].get("ok") is False]
    print(f"\n{tables}\n\n{len(rows)} rows, {len(failed)} failed; results in {args.out}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
