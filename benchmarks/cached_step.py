"""Memory and time of a training step: the whole batch at once against encoding in parts, twice.

    python benchmarks/cached_step.py --pairs 512 --chunks 0 64 16

Small encoders, trained, on random pictures and captions; a step is forward, loss and backward. Each
row is measured in a process of its own: the most memory that the first step takes beyond the model
(resident; on a GPU: allocated), and the seconds of the second.
"""

from __future__ import annotations

import argparse
import multiprocessing
from contextlib import nullcontext
from typing import Any

import torch
from measure import peak, seconds

from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.report.table import Table, markdown_table
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.gradient_cache import CachedEncoding

WORDS = [f"w{number}" for number in range(100)]
FUSIONS: dict[str, dict[str, Any]] = {
    "pooled": {"name": "pooled"},
    "cross_modal": {"name": "cross_modal", "num_heads": 2, "attention": "parameter-free"},
}


def measured(fusion: str, chunk: int, pairs: int, width: int, device: str) -> dict[str, Any]:
    """Return a row of the table, of steps with `chunk` pairs encoded at once (0: all)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = RetrievalModel(
        {"name": "grid", "width": width, "grid": 6},
        {"name": "transformer", "vocabulary": WORDS, "width": width},
        FUSIONS[fusion],
        dim=32,
    ).to(device)
    captions = [" ".join(WORDS[(7 * row + k) % 100] for k in range(12)) for row in range(pairs)]
    batch = model.text_encoder.tokenize(captions) | {
        "pixel_values": torch.rand(pairs, 3, 96, 96) * 2 - 1
    }
    batch = {name: values.to(device) for name, values in batch.items()}
    loss_of = AsymmetryLoss()

    def step() -> None:
        model.zero_grad()
        if not chunk:
            loss_of(**model(batch)).backward()
            return
        cached = CachedEncoding(model, batch, chunk, nullcontext)
        loss_of(**model.score_blocks(cached.images, cached.texts, batch)).backward()
        cached.carry_on()

    return {
        "fusion": fusion,
        "pairs": pairs,
        "encoded at once": chunk or "all",
        "peak MiB": round(peak(step) / 2**20),
        "seconds": f"{seconds(step, 0):.2f}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 64, 16])
    parser.add_argument("--width", type=int, default=128, help="of the encoders")
    parser.add_argument("--fusions", nargs="+", choices=list(FUSIONS), default=["pooled"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    fresh = multiprocessing.get_context("spawn")
    rows = []
    for fusion in args.fusions:
        for chunk in args.chunks:
            with fresh.Pool(1) as pool:
                given = (fusion, chunk, args.pairs, args.width, args.device)
                rows.append(pool.apply(measured, given))
    print(markdown_table(Table("", rows, digits=1)))


if __name__ == "__main__":
    main()
