"""Time and memory of re-ranking top-K lists, beside the lists themselves.

    python benchmarks/rerank_candidates.py --texts 1000000 --images 200000 --length 100

The lists are drawn: items lie on a line, and a list holds items near its query. Linux only: the
peak is the kernel's count of resident memory.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from ascl_plugin import rerank_candidates


def drawn_lists(
    queries: int, gallery: int, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw (Q, length) distinct ids near each query, int64, and falling float32 scores."""
    ids = np.empty((queries, length), dtype=np.int64)
    step = rng.permutation(length) - length // 2
    for start in range(0, queries, 2**14):
        rows = np.arange(start, min(start + 2**14, queries))
        centre = rows * gallery // queries + rng.integers(0, length // 4 + 1, len(rows))
        ids[rows] = (centre[:, None] + rng.permutation(step)) % gallery
    scores = np.sort(rng.random((queries, length), dtype=np.float32), axis=1)[:, ::-1].copy()
    return ids, scores


def main() -> None:
    """Print one line of a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"texts": 100_000, "images": 20_000, "length": 100, "k": 20, "neighbors": 0}
    for name, default in {**defaults, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if max(args.length, args.k) > min(args.images, args.texts):
        parser.error("lists are longer than there are images or texts")
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    i2t = drawn_lists(args.images, args.texts, args.length, rng)
    t2i = drawn_lists(args.texts, args.images, args.length, rng)
    near = None
    if args.neighbors:
        near = rng.integers(0, args.texts, (args.texts, args.neighbors))
    given = sum(array.nbytes for array in (*i2t, *t2i))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    rerank_candidates(*i2t, *t2i, k=args.k, neighbors=near)
    seconds = time.perf_counter() - start
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print("| texts | images | length | k | given neighbours | lists, MB | took, MB | seconds |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    sizes = (args.texts, args.images, args.length, args.k, args.neighbors)
    cells = (*sizes, round(given / 1e6), round(extra * 1024 / 1e6))
    print(f"| {' | '.join(f'{cell:,}' for cell in cells)} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
