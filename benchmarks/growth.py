"""Time and memory of each hot path at three sizes, and the power of the size that they follow.

    python benchmarks/growth.py                    # minutes on one core
    python benchmarks/growth.py --only metrics     # rows whose name begins so
    python benchmarks/growth.py --share 0.1        # smaller, for a try

Time is CPU seconds of one thread, the least of `--repeats`; memory is the peak beyond the inputs
(the kernel's count, Linux). Data are drawn (seed 0). Exponents are least-squares fits in logarithms
over the three sizes; fixed costs make them smaller than expected, never larger. "Each" is the time
at the largest size by its expected power: of a pair where that is 2, of an item where it is 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import peak
from rerank_candidates import drawn_lists
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin import (
    CrossModalFusion,
    ImageFeatures,
    Reranker,
    TextFeatures,
    rerank,
    rerank_candidates,
    retrieval_metrics,
    score_matrix,
)
from ascl_plugin.data.annotations import read_karpathy
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.search import candidate_pairs

REGIONS, WORDS, WIDTH, HEADS = 36, 14, 1024, 8  # of the papers
CANDIDATES = 20


@dataclass
class HotPath:
    """A hot path.

    Args:
        name: in the table.
        sizes: N, three of them.
        time, memory: expected exponents of N.
        prepare: N -> the work to measure, its inputs made.
    """

    name: str
    sizes: tuple[int, int, int]
    time: float
    memory: float
    prepare: Callable[[int], Callable[[], object]]


def features(n: int) -> tuple[CrossModalFusion, ImageFeatures, TextFeatures]:
    """Return a scorer and n images and texts of the papers' sizes."""
    g = torch.Generator().manual_seed(0)
    regions = torch.randn(n, REGIONS, WIDTH, generator=g)
    images = ImageFeatures(regions, None, regions.mean(1))
    texts = TextFeatures(torch.randn(n, WORDS, WIDTH, generator=g))
    head = CrossModalFusion(WIDTH, HEADS, attention="parameter-free").requires_grad_(False)
    return head, images, texts


def matrix(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, 5 n) and the image of each text."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5 * n), dtype=np.float32), np.arange(5 * n) // 5


def vectors(n: int, width: int) -> Tensor:
    """Return n unit vectors."""
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(n)))


def scoring(n: int, topk: int | None = None) -> Callable[[], object]:
    """Score n images against n texts, into a matrix or into lists."""
    given = features(n)
    if topk is None:
        return lambda: score_matrix(*given, memory=2**28)
    return lambda: score_matrix(*given, memory=2**28, topk=topk)


def from_matrix(n: int, method: str) -> Callable[[], object]:
    """Re-rank (n, 5 n)."""
    sim, _ = matrix(n)
    return lambda: rerank(sim, method=method)


def from_lists(n: int) -> Callable[[], object]:
    """Re-rank n lists of each direction."""
    rng = np.random.default_rng(0)
    lists = (*drawn_lists(n, n, CANDIDATES, rng), *drawn_lists(n, n, CANDIDATES, rng))
    return lambda: rerank_candidates(*lists, k=CANDIDATES)


def metrics(n: int) -> Callable[[], object]:
    """Find the recalls of (n, 5 n)."""
    sim, owners = matrix(n)
    return lambda: retrieval_metrics(sim, owners)


def bank(n: int) -> Callable[[], object]:
    """Fit a bank of 256 queries on n gallery items of width 512."""
    queries, gallery = vectors(256, 512), vectors(n, 512)
    fitted = Reranker("inverted_softmax")
    return lambda: fitted.fit(bank_vectors=queries, gallery_vectors=gallery)


def candidates(n: int) -> Callable[[], object]:
    """Find 20 candidates of n images and n texts, width 256, in a flat index (faiss)."""
    images, texts = vectors(n, 256), vectors(n + 1, 256)[:n]
    return lambda: candidate_pairs(images, texts, CANDIDATES)


def exact(n: int) -> Callable[[], object]:
    """Score 20 candidates of each of n images."""
    head, images, texts = features(n)
    rows = torch.arange(n).repeat_interleave(CANDIDATES)
    columns = (rows + torch.arange(CANDIDATES).repeat(n)) % n
    return lambda: score_pairs(head, images, texts, rows, columns, memory=2**28)


def annotations(n: int) -> Callable[[], object]:
    """Read a Karpathy file of n images with five captions of ten words."""
    sentence = {"raw": "a dog runs over the grass with a red ball"}
    rows = [
        {"filename": f"{i}.jpg", "imgid": i, "split": "train", "sentences": [sentence] * 5}
        for i in range(n)
    ]
    folder = Path(tempfile.mkdtemp())
    (folder / "dataset.json").write_text(json.dumps({"images": rows}))
    for i in range(n):
        (folder / f"{i}.jpg").touch()
    return lambda: read_karpathy(folder / "dataset.json", folder)


def paths(share: float) -> Iterator[HotPath]:
    """Yield the hot paths, their sizes times `share`."""

    def of(name: str, first: int, time_: float, memory: float, prepare: Callable) -> HotPath:
        sizes = tuple(max(8, int(first * share) * 2**i) for i in range(3))
        return HotPath(name, sizes, time_, memory, prepare)

    yield of("scoring, a matrix", 128, 2, 2, scoring)
    yield of("scoring, the best 10", 128, 2, 1, lambda n: scoring(n, 10))
    yield of("exact scores of 20 candidates", 256, 1, 1, exact)
    yield of("candidates, flat index", 4000, 2, 1, candidates)
    yield of("re-ranking a matrix, default", 500, 2, 2, lambda n: from_matrix(n, "bidirectional"))
    yield of("re-ranking a matrix, csls", 500, 2, 2, lambda n: from_matrix(n, "csls"))
    yield of("re-ranking lists of 20", 20000, 1, 1, from_lists)
    yield of("metrics of a matrix", 500, 2, 1, metrics)
    yield of("fit of a bank of 256", 25000, 1, 1, bank)
    yield of("reading annotations", 5000, 1, 1, annotations)


def least(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """Return the power of the size that values follow; NaN if one is not above zero."""
    if min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name begins so")
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        import faiss

        faiss.omp_set_num_threads(1)
    except ImportError:
        print("without faiss: no row of candidates")
    print(f"torch {torch.__version__}, {platform.machine()}, one thread\n")
    print("| | N | CPU seconds | power | expected | peak MB | power | expected | each |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for path in paths(args.share):
        if not path.name.startswith(args.only):
            continue
        times, sizes = [], []
        try:
            for n in path.sizes:
                work = path.prepare(n)
                work()
                sizes.append(peak(work) / 2**20)
                times.append(least(work, args.repeats))
        except ImportError as error:
            print(f"| {path.name} | {error} |")
            continue
        of = " / ".join
        each = times[-1] / path.sizes[-1] ** path.time * 1e6
        cells = (
            of(f"{n:,}" for n in path.sizes), of(f"{t:.3g}" for t in times),
            f"{exponent(path.sizes, times):.2f}", f"{path.time:g}",
            of(f"{m:.0f}" for m in sizes), f"{exponent(path.sizes, sizes):.2f}",
            f"{path.memory:g}", f"{each:.3g} us",
        )  # fmt: skip
        print(f"| {path.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
