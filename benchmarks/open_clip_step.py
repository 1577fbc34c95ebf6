"""A training step of an open_clip model with the asymmetry loss, and with ClipLoss, in one run.

    python benchmarks/open_clip_step.py                                 # tiny model, CPU
    python benchmarks/open_clip_step.py --model ViT-B-32 --batch 256    # on a GPU: bf16

Random weights, pixels and tokens, already on the device: neither decoding nor loading is timed. A
step is forward, loss, backward and AdamW, the same model and data for all; rounds of all ways
alternate, and the median over rounds is told.

    clip_loss    open_clip's model and ClipLoss
    asymmetry    the same, with OpenClipAsymmetryLoss: a noisy embedding a text as negative
    retrieval    the towers under a cross-modal head (RetrievalModel), regions, words, a generated
                 positive and both sorts of generated negatives, AsymmetryLoss
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.loss import ClipLoss

from ascl_plugin import AsymmetryLoss
from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
from ascl_plugin.adapters.towers.open_clip import attach

TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2,
    },
}  # fmt: skip
CAPTION = "a photo of a brown dog that runs over wet grass"


def main() -> None:
    """Prints a line a way: milliseconds a step, pairs a second, peak memory on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="name of open_clip's, or tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--dim", type=int, default=256, help="joint width of retrieval")
    parser.add_argument("--num_regions", type=int, default=None)
    parser.add_argument("--num_threads", type=int, default=0)
    args = parser.parse_args()
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{args.model}, batch {args.batch}, {where}, torch {torch.__version__}")
    steps = ways(args, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for step in steps.values():  # what is compiled, allocated or chosen once
        step()
    for _ in range(args.rounds):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times[name].append(seconds(step, args.steps, device))
            if device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated()
    print(f"{'':12}{'ms a step':>12}{'pairs/s':>12}{'of clip_loss':>14}{'peak GiB':>10}")
    plain = statistics.median(times["clip_loss"])
    for name, values in times.items():
        middle = statistics.median(values)
        peak = f"{peaks[name] / 2**30:.2f}" if name in peaks else "-"
        speed = f"{args.batch / middle:12.1f}{plain / middle:14.2f}"
        print(f"{name:12}{1e3 * middle:12.1f}{speed}{peak:>10}")


def seconds(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Mean seconds of a step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def ways(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """A function a way, each a whole training step with weights of its own."""
    with tempfile.TemporaryDirectory() as folder:
        name = args.model
        if name == "tiny":
            name = "ascl-benchmark-tiny"
            Path(folder, f"{name}.json").write_text(json.dumps(TINY))
            open_clip.add_model_config(Path(folder))
        torch.manual_seed(0)
        clip = [open_clip.create_model(name, output_dict=True).to(device) for _ in range(2)]
        torch.manual_seed(0)
        retrieval = attach(
            name, tune="full", num_regions=args.num_regions, dim=args.dim, fusion={"num_heads": 8}
        ).to(device)
        tokens = open_clip.get_tokenizer(name)([CAPTION] * args.batch).to(device)
    size = clip[0].visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    pixels = torch.randn(args.batch, 3, height, width, device=device)
    words = retrieval.text_encoder.tokenize([CAPTION] * args.batch)
    words = {name: value.to(device) for name, value in words.items()}
    batch = {
        **words,
        **{f"positive_{name}": value for name, value in words.items()},
        "pixel_values": pixels,
        "noise_seed": torch.arange(args.batch),
        "positive_noise_seed": torch.arange(args.batch),
    }
    asymmetry = AsymmetryLoss()
    losses = {"clip_loss": ClipLoss(), "asymmetry": OpenClipAsymmetryLoss()}
    found = {
        way: training_step(model, lambda m=model, loss=loss: loss(**m(pixels, tokens)), device)
        for model, (way, loss) in zip(clip, losses.items(), strict=True)
    }
    found["retrieval"] = training_step(retrieval, lambda: asymmetry(**retrieval(batch)), device)
    return found


def training_step(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], device: torch.device
) -> Callable[[], None]:
    """Forward and backward in bf16 on a GPU, fp32 on a CPU; AdamW."""
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
