"""Memory of scoring beside features and result: the peak of a fresh process.

    python benchmarks/scoring.py --images 100 --texts 800 --memory 256
    python benchmarks/scoring.py --only matrix --path sims.npy  # into a file; goes on if killed

Linux only: the peak is the kernel's count of resident memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from ascl_plugin import CrossModalFusion, ImageFeatures, TextFeatures, score_matrix
from ascl_plugin.scoring.pairs import score_pairs

REGIONS, WORDS = 36, 24
KINDS = ("matrix", "topk", "pairs")


def peak() -> float:
    """Return the peak of resident memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(kind: str, args: argparse.Namespace) -> None:
    """Print one line of the table."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    lengths = (12 + 3 * torch.randn(args.texts, 1)).clamp(4, WORDS)
    texts = TextFeatures(torch.randn(args.texts, WORDS, args.dim), torch.arange(WORDS) < lengths)
    pooled = torch.randn(args.images, args.dim)
    images = ImageFeatures(torch.randn(args.images, REGIONS, args.dim), None, pooled)
    head = CrossModalFusion(args.dim, args.heads, attention=args.attention).requires_grad_(False)
    head(images[:2], texts[:2])
    memory, before, start = args.memory * 2**20, peak(), time.process_time()
    pairs = args.images * args.texts
    if kind == "matrix":
        score_matrix(head, images, texts, memory=memory, path=args.path, progress=bool(args.path))
    elif kind == "topk":
        score_matrix(head, images, texts, memory=memory, topk=10)
    else:
        every = torch.arange(pairs)[::10]
        rows, columns = every // args.texts, every % args.texts
        score_pairs(head, images, texts, rows, columns, memory=memory)
        pairs = len(every)
    seconds = time.process_time() - start
    extra = peak() - before
    print(f"| {kind} | {pairs:,} | {args.memory} | {extra:.0f} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Print the table, a process for each line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 100), ("texts", 800), ("dim", 1024), ("heads", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=int, default=256, help="budget, MiB")
    parser.add_argument("--attention", default="projected")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--path", help="file to score into, and to go on with")
    parser.add_argument("--only", choices=KINDS)
    args = parser.parse_args()
    if args.only:
        measure(args.only, args)
        return
    print("| | pairs | budget, MiB | took, MiB | CPU s |\n|---|---:|---:|---:|---:|", flush=True)
    for kind in KINDS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", kind], check=True)


if __name__ == "__main__":
    main()
