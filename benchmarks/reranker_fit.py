"""Time and memory of `Reranker`: fitting on vectors, and one query against a large gallery.

    python benchmarks/reranker_fit.py --gallery 1000000 --bank 256 --width 512

Vectors are drawn (seed 0), float32. Peak memory is beyond the vectors, of which the gallery has
4 * gallery * width bytes. Time to fit grows with gallery * bank * width; the time of one query
does not depend on bank or width. The least of `--repeats` queries is printed.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import torch
from measure import peak, seconds

from ascl_plugin import Reranker


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--bank", type=int, default=1000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--methods", nargs="+", default=["inverted_softmax", "nnn"])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((args.gallery, args.width), dtype=np.float32)
    bank = rng.standard_normal((args.bank, args.width), dtype=np.float32)
    for vectors in (gallery, bank):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = gallery @ bank[0]
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {platform.machine()}, {threads} threads, {args}")
    for method in args.methods:
        reranker = Reranker(method)
        start, cpu = time.perf_counter(), time.process_time()
        used = peak(lambda r=reranker: r.fit(bank_vectors=bank, gallery_vectors=gallery))
        fit, cpu = time.perf_counter() - start, time.process_time() - cpu
        one = seconds(lambda r=reranker: r.transform(query), args.repeats)
        vectors = (gallery.nbytes + bank.nbytes) / 2**20
        memory = f"peak {used / 2**20:.0f} MB beyond {vectors:.0f} MB of vectors"
        time_ = f"fit {fit:.1f} s, {cpu:.1f} s of CPU"
        print(f"{method}: {time_}, {memory}; one query {1000 * one:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
