"""Resident memory of training on region features that are larger than it may be.

    python benchmarks/region_streaming.py                      # 5,000 images x 36 x 2048: 1.5 GB
    python benchmarks/region_streaming.py --format npy --workers 2

Writes a file of random features and captions to a temporary folder, trains `recipes/ascl_coco.py`
on it for one pass in a process of its own, and prints the most that was resident, sampled every
20 ms: all of it, its anonymous part (what the process itself holds) and its mapped files
(libraries; features are read, not mapped). The last figure adds what workers hold.
Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RECIPE = Path(__file__).parents[1] / "recipes" / "ascl_coco.py"
SPLITS = {"train": None, "dev": 50, "test": 50}
BLOCK = 64  # images drawn at once
KINDS = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "files"}


def generate(folder: Path, images: int, regions: int, dim: int) -> int:
    """Write features in SCAN's layout; return their bytes."""
    draw = np.random.default_rng(0)
    total = 0
    for name, size in SPLITS.items():
        count = size or images
        path = folder / f"{name}_ims.npy"
        shape = (count, regions, dim)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, count, BLOCK):
                size = min(BLOCK, count - start)
                file.write(draw.standard_normal((size, regions, dim), dtype=np.float32).data)
        total += path.stat().st_size
        lines = [
            f"word{draw.integers(1000)} of image {i}\n" for i in range(count) for _ in range(5)
        ]
        (folder / f"{name}_caps.txt").write_text("".join(lines))
    return total


def resident(process: int) -> dict[str, int]:
    """Return the kB by kind of a process; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines)
    return {k: int(found[k].split()[0]) for k in (*KINDS, "VmHWM") if k in found}


def children(process: int) -> list[int]:
    """Return the ids of child processes, data workers among them."""
    try:
        return [
            int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except OSError:
        return []


def main() -> None:
    """Generate data, train, print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("images", 5000), ("regions", 36), ("feature_dim", 2048), ("dim", 1024), ("batch_size", 64),
        ("max_steps", 0), ("workers", 0), ("threads", 1),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--format", choices=("npy", "h5"), default="npy")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = generate(folder, args.images, args.regions, args.feature_dim)
        files = folder
        if args.format != "npy":
            from ascl_plugin.adapters.regions.convert import convert

            files = folder / "converted"
            files.mkdir()
            for name in SPLITS:
                convert(folder / f"{name}_ims.npy", files / f"{name}.h5")
        command = [
            sys.executable, RECIPE, f"--data_root={folder}", f"--region_files={files}",
            f"--output_dir={folder / 'run'}", f"--dim={args.dim}", "--fusion.num_heads=8",
            "--epochs=1", "--align_epochs=0", "--captions_per_epoch=1", "--log_with=none",
            f"--batch_size={args.batch_size}", f"--max_steps={args.max_steps}",
            f"--num_workers={args.workers}", f"--num_threads={args.threads}", "--cpu=True",
            "--save_every=0",
        ]  # fmt: skip
        started = time.perf_counter()
        running = subprocess.Popen([str(word) for word in command])
        peaks, together, mark = dict.fromkeys(KINDS, 0), 0, 0
        while running.poll() is None:
            own = resident(running.pid)
            for kind in KINDS:
                peaks[kind] = max(peaks[kind], own.get(kind, 0))
            mark = max(mark, own.get("VmHWM", 0))
            others = [resident(child).get("RssAnon", 0) for child in children(running.pid)]
            together = max(together, own.get("VmRSS", 0) + sum(others))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if running.returncode:
            sys.exit(running.returncode)
        told = ", ".join(f"{KINDS[k]} {v / 1024:.0f}" for k, v in peaks.items())
        print(
            f"features {size / 2**20:.0f} MiB as {args.format}; {seconds:.0f} s; most resident, "
            f"MiB: VmHWM {mark / 1024:.0f}, {told}; with workers' own {together / 1024:.0f}"
        )


if __name__ == "__main__":
    main()
