"""What one of two processes of test_stream.py does: runs that are fed from a stream."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import processes_ranks as program
import torch
import torch.distributed as dist

# 2 epochs of 2 steps of 2 batches of 6 pairs, 2 of each of 3 lanes, as are the stream's passes
STREAM = [
    "--batch_size=6", "--stream_lanes=3", "--stream_buffer=9", "--balanced_pairs=0",
    "--max_steps=4",
]  # fmt: skip


def run(out, name, *more, **options):
    """The recipe on OUT/shards; its exit status, and what was in each batch."""
    return program.run(out / name, f"--train_stream={out}/shards/*.tar", *STREAM, *more, **options)


def one_process(rank, out):
    """One of two; what it found goes into a file, its runs into folders beside it."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    found = {
        "1-2, then": run(out, "1-2", "--resume", "--num_workers=2"),
        "2-1, first": run(out, "2-1", stop_at=4),
    }
    torch.save(found, out / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), Path(sys.argv[1]))
