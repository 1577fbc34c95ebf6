"""Time and memory of `rerank` against the loops it is published as, in one run.

    python benchmarks/rerank.py                                       # 1,000 x 5,000
    python benchmarks/rerank.py --images 5000 --texts 25000           # and the loops left out
    python benchmarks/rerank.py --images 5000 --texts 25000 --loops   # stops them after 10 minutes
    python benchmarks/rerank.py --images 5000 --texts 25000 --methods csls nnn   # or all

Opponents, on the same scores, threads and device:

    loops   eqs 19-29 a query at a time, as published: all lists sorted before, then for each
            candidate `np.where(its list == query)`; float32, on the CPU
    floor   two passes of `torch.topk` over the matrix, one for each direction: candidates alone,
            nothing re-ranked

Peak memory is the kernel's (Linux) or torch's (GPU) count beyond the scores; the two results, each
as large as the scores, are part of it.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import peak, seconds
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin import available, rerank

LIMIT = 600  # seconds that the loops may take


def scores_of(args: argparse.Namespace) -> Tensor:
    """Draw scores (I, T), float32: cosines of images and noisy copies; some items are hubs."""
    g = torch.Generator().manual_seed(args.seed)
    images = torch.randn(args.images, args.dim, generator=g)
    owner = torch.arange(args.texts) * args.images // args.texts
    texts = images[owner] + 2 * torch.randn(args.texts, args.dim, generator=g)
    scores = normalize(images) @ normalize(texts).T
    scores += 0.02 * torch.randn(args.images, 1, generator=g)
    return scores.add_(0.02 * torch.randn(args.texts, generator=g))


def loops(sim: np.ndarray, k: int, limit: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return new lists (I, k) and (T, k); None if they take longer than `limit` seconds."""
    start = time.perf_counter()
    texts_of = np.stack([np.argsort(-row) for row in sim])
    images_of = np.stack([np.argsort(-column) for column in np.ascontiguousarray(sim.T)])
    results = []
    for lists, reverse in ((texts_of, images_of), (images_of, texts_of)):
        result = lists[:, :k].copy()
        for query, candidates in enumerate(result):
            places = [np.where(reverse[c] == query)[0][0] for c in candidates]
            candidates[:] = candidates[np.argsort(places, kind="stable")]
            if time.perf_counter() - start > limit:
                return None
        results.append(result)
    return results[0], results[1]


def floor(scores: Tensor, k: int) -> None:
    """Find candidates of both directions, columns in strips as `rerank` does."""
    for matrix in (scores, scores.T):
        for strip in matrix.split(max(1, 2**22 // matrix.shape[1])):
            strip.contiguous().topk(k, dim=1)


def agreement(scores: Tensor, args: argparse.Namespace, lists: tuple[np.ndarray, ...]) -> float:
    """Return the share of places with the same item; the loops leave the order of ties open."""
    i2t, t2i = rerank(scores, args.k)
    same = total = 0
    for matrix, wanted in zip((i2t, t2i.T), lists, strict=True):
        found = matrix.sort(dim=1, descending=True, stable=True).indices[:, : args.k]
        same += int((found.cpu() == torch.from_numpy(wanted)).sum())
        total += wanted.size
    return same / total


def methods(scores: Tensor, args: argparse.Namespace) -> None:
    """Print seconds, CPU seconds and memory of each method at its defaults, beside the floor."""
    asked = args.methods if args.methods != ["all"] else available("rerank")
    variants = {"mutual_proximity": {"distribution": "empirical"}}
    print(f"\n**{args.images:,} x {args.texts:,}**, float32, both directions, at defaults\n")
    print("| method | seconds | CPU seconds | / floor | peak MB beyond the scores |")
    print("|---|---:|---:|---:|---:|")

    def row(work: Callable[[], object]) -> tuple[float, float, float]:
        cpu, start = time.process_time(), time.perf_counter()
        memory = peak(work)
        cpu, least = time.process_time() - cpu, time.perf_counter() - start
        return min(least, seconds(work, args.repeats) if args.repeats else least), cpu, memory

    bare = row(lambda: floor(scores, args.k))
    rows = [("floor", bare)]
    for method in asked:
        for options in ({}, variants.get(method)) if variants.get(method) else ({},):
            name = ", ".join([method, *(f"{n}={v}" for n, v in options.items())])
            rows.append((name, row(lambda m=method, o=options: rerank(scores, method=m, **o))))
    for name, (least, cpu, memory) in rows:
        print(
            f"| {name} | {least:.2f} | {cpu:.2f} | {least / bare[0]:.1f} | {memory / 2**20:.0f} |"
        )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=128, help="width of the drawn features")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--text_neighbors", type=int, nargs="+", default=[1])
    parser.add_argument("--loops", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--methods", nargs="+", help="print these instead, or all")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.loops is None:
        args.loops = args.images * args.texts <= 10**7
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    where = f"{device or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, seed {args.seed}, {vars(args)}")

    scores = scores_of(args).to(args.device)
    if args.methods:
        methods(scores, args)
        return
    rows: list[tuple[str, float, float | None]] = []
    bare = seconds(lambda: floor(scores, args.k), args.repeats)
    for neighbors in args.text_neighbors:
        for dtype in (torch.float32, torch.float16):
            given = scores.to(dtype)

            def work(s: Tensor = given, n: int = neighbors) -> object:
                return rerank(s, args.k, text_neighbors=n)

            name = f"rerank, {str(dtype).removeprefix('torch.')}"
            name += f", text_neighbors={neighbors}" if neighbors > 1 else ""
            memory = peak(work)  # before the loops: what they free, the next could take unseen
            rows.append((name, seconds(work, 0 if neighbors > 1 else args.repeats), memory))
    rows.append(("floor", bare, None))
    slow = same = None
    if args.loops:
        sim, found = scores.cpu().numpy(), []
        slow = seconds(lambda: found.append(loops(sim, args.k, LIMIT)), 0)
        if found[0] is None:
            print(f"\nthe loops were stopped after {slow:.0f} s")
        else:
            same = agreement(scores, args, found[0])
        rows.insert(0, ("loops", slow, None))

    print(f"\n**{args.images:,} x {args.texts:,}**, k = {args.k}, both directions\n")
    print("| | seconds | loops / this | this / floor | peak MB beyond the scores |")
    print("|---|---:|---:|---:|---:|")
    for name, t, memory in rows:
        against = "" if slow is None else f"{slow / t:.1f}"
        size = "" if memory is None else f"{memory / 2**20:.0f}"
        print(f"| {name} | {t:.2f} | {against} | {t / bare:.1f} | {size} |")
    if same is not None:
        print(f"\n{100 * same:.3f} % of the places in the lists are those of the loops")


if __name__ == "__main__":
    main()
