"""Time and memory of scoring image-text pairs, against the ways it is commonly done, in one run.

    python benchmarks/fusion.py                 # scoring: 128 images x 512 captions
    python benchmarks/fusion.py --table step    # one training step, four score blocks
    python benchmarks/fusion.py --table tiles   # bytes of a tile

Opponents, on the same inputs, threads and device:

    reference   the printed equations, pair by pair; timed on some, since cost is linear in pairs
    loop        a caption at a time against all images, as SCAN and code after it do: attended
                vectors written out, cosines of them; image-side projections made once
    floor       the matrix product of all regions and words alone: no softmax, no norms, no score
"""

from __future__ import annotations

import argparse
import platform
import resource
from collections.abc import Callable
from functools import partial

import torch
from measure import held, peak, seconds
from torch import Tensor
from torch.nn import functional

from ascl_plugin import AsymmetryLoss
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.fusion import CrossModalFusion, compiled_backend, factored
from ascl_plugin.fusion.head import BACKENDS
from ascl_plugin.fusion.reference import cosine, fuse, score_pair

KINDS = ("parameter-free", "projected")


def per_caption_loop(
    head: CrossModalFusion, images: ImageFeatures, texts: TextFeatures, with_global: bool
) -> Tensor:
    """Return scores (I, T), a caption at a time, with W* and V* of all images written out."""
    v, heads = images.regions, head.num_heads
    r2w, w2r = head.image_to_text, head.text_to_image

    def by_head(x: Tensor) -> Tensor:  # (..., M, D) -> (..., H, M, d)
        return x.unflatten(-1, (heads, -1)).transpose(-3, -2)

    queries, keys = by_head(r2w.query(v)), by_head(w2r.key(v))
    pooled = head.pooled_global(images.pooled)
    columns = []
    for t in range(len(texts)):
        w = texts.words[t][texts.mask[t]][None]  # (1, L, D)
        wk = by_head(r2w.key(w))
        a = torch.softmax(queries @ wk.transpose(-1, -2) * r2w.scale, dim=-1)
        w_star = r2w.output((a @ wk).transpose(1, 2).flatten(2))  # (I, K, D)
        wq = by_head(w2r.query(w))
        b = torch.softmax(wq @ keys.transpose(-1, -2) * w2r.scale, dim=-1)
        v_star = w2r.output((b @ keys).transpose(1, 2).flatten(2))  # (I, L, D)
        u1 = head.direction_weight
        score = u1 * functional.cosine_similarity(v, w_star, dim=-1).mean(1)
        score = score + (1 - u1) * functional.cosine_similarity(w, v_star, dim=-1).mean(1)
        if with_global:
            w_g = head.text_global(w_star.mean(1))
            v_g = fuse(head, head.image_global(v_star.mean(1)), pooled)
            score = head.local_weight * score + (1 - head.local_weight) * cosine(v_g, w_g)
        columns.append(score)
    return torch.stack(columns, 1)


def floor(images: ImageFeatures, texts: TextFeatures) -> None:
    """Multiply every region by every real word, in strips that fit a cache."""
    words = texts.words[texts.mask].T.contiguous()
    for strip in images.regions.flatten(0, 1).split(1024):
        strip @ words


def inputs(args: argparse.Namespace, **sizes: int) -> tuple[ImageFeatures, TextFeatures]:
    """Draw features of unit length; captions of 8 to 20 words, or all of `words` if given."""
    s = {"images": args.images, "texts": args.texts, "regions": 36, "words": 0, "dim": args.dim}
    s |= sizes
    g = torch.Generator(args.device).manual_seed(args.seed)
    draw = {"generator": g, "device": args.device}

    def unit(*shape: int) -> Tensor:
        return functional.normalize(torch.randn(shape, **draw), dim=-1)

    lengths = torch.randint(8, 21, (s["texts"],), **draw)
    if s["words"]:
        lengths = torch.full_like(lengths, s["words"])
    longest = int(lengths.max())
    images = ImageFeatures(
        unit(s["images"], s["regions"], s["dim"]), None, unit(s["images"], s["dim"])
    )
    real = torch.arange(longest, device=args.device) < lengths[:, None]
    return images, TextFeatures(unit(s["texts"], longest, s["dim"]), real)


def head_of(args: argparse.Namespace, kind: str, **options: float) -> CrossModalFusion:
    """Return a head with initial weights."""
    torch.manual_seed(args.seed)
    options = {"dim": args.dim, "num_heads": args.heads} | options
    return CrossModalFusion(attention=kind, **options).to(args.device)


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def scoring(args: argparse.Namespace) -> None:
    """Print the table of scoring all pairs."""
    images, texts = inputs(args)
    pairs = len(images) * len(texts)
    bare = seconds(lambda: floor(images, texts), args.repeats)
    for kind in KINDS:
        for with_global in (False, True):
            head = head_of(args, kind, local_weight=0.8 if with_global else 1.0)
            with torch.no_grad():
                per_caption_loop(head, images, texts[:8], with_global)  # warm
                loop = seconds(
                    lambda h=head, w=with_global: per_caption_loop(h, images, texts, w), 0
                )
                sample = images[:2], texts[:16]
                slow = seconds(lambda h=head, s=sample: h(*s, backend="reference"), 1) / 32 * pairs
                rows = [
                    line("reference (32 pairs, scaled)", slow, loop, bare, pairs),
                    line("per-caption loop", loop, loop, bare, pairs),
                ]
                double = CrossModalFusion(
                    args.dim, args.heads, head.local_weight, attention=kind
                ).double()
                double.load_state_dict({k: v.double() for k, v in head.state_dict().items()})
                exact = exact_scores(double.to(args.device), *sample)
                for name in BACKENDS:
                    if name == "reference" or (name == "triton" and args.device != "cuda"):
                        continue
                    if name == "compiled" and compiled_backend.refusal(images, texts):
                        continue

                    def score(n: str = name, h: CrossModalFusion = head) -> Tensor:
                        return h(images, texts, backend=n)

                    off = (score()[:2, :16].double() - exact).abs().max().item()
                    memory = peak(score)
                    rows.append(
                        line(name, seconds(score, args.repeats), loop, bare, pairs, memory, off)
                    )
            rows.append(line("floor", bare, loop, bare, pairs))
            table(
                f"**{kind}**, {'local and global' if with_global else 'local alone (u2 = 1)'}",
                ["", "seconds", "loop / this", "this / floor", "pairs/s", "peak MB", "off fp64"],
                rows,
            )


def exact_scores(head: CrossModalFusion, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    """Score with the reference in float64."""
    v = ImageFeatures(images.regions.double(), None, images.pooled.double())
    return head(v, TextFeatures(texts.words.double(), texts.mask), backend="reference")


def line(
    name: str, t: float, loop: float, bare: float, pairs: int,
    memory: float | None = None, off: float | None = None,
) -> list[str]:  # fmt: skip
    """Return a row of the table of scoring."""
    return [
        name, f"{t:.3f}", f"{loop / t:.1f}", f"{t / bare:.1f}", f"{pairs / t:,.0f}",
        "" if memory is None else f"{memory / 2**20:.0f}", "" if off is None else f"{off:.1e}",
    ]  # fmt: skip


def step(args: argparse.Namespace) -> None:
    """Print the table of a step over captions, positives, and noised versions of both."""
    n = args.batch
    images, texts = inputs(args, images=n, texts=n)
    noisy = TextFeatures(texts.words + 0.1 * torch.randn_like(texts.words), texts.mask)
    for kind in KINDS:
        head = head_of(args, kind)
        loss = AsymmetryLoss()

        def train(h: CrossModalFusion = head, f: AsymmetryLoss = loss) -> None:
            v = ImageFeatures(images.regions.clone().requires_grad_(), None, images.pooled)
            h.zero_grad()
            scores = h(v, concatenate([texts, noisy, texts, noisy]))
            f(*scores.split(n, dim=1)).backward()

        def pair(h: CrossModalFusion = head) -> None:
            for i in range(4):
                w = texts.words[i][texts.mask[i]]
                v = images.regions[i].clone().requires_grad_()
                local, glob = score_pair(h, v, images.pooled[i], w)
                (local + glob).backward()

        pairs = 4 * n * n
        slow = seconds(pair, 2) / 4 * pairs
        fast = seconds(train, args.repeats)
        t = int(texts.mask.sum(1).argsort()[n // 2])  # of middling length
        v, w = images.regions[0].clone(), texts.words[t][texts.mask[t]]
        v, w = v.requires_grad_(), w.requires_grad_()
        pooled = images.pooled[0].clone()
        kept_slow = kept(partial(score_pair, head, v, pooled, w), head, v, w, pooled) * pairs
        batch = ImageFeatures(images.regions.clone().requires_grad_(), None, images.pooled)
        four = concatenate([texts, noisy, texts, noisy])
        four = TextFeatures(four.words.requires_grad_(), four.mask)
        kept_fast = held(partial(head, batch, four))
        table(
            f"**{kind}**, batch {n}, {pairs:,} pairs",
            ["", "seconds", "reference / this", "held for backward, MB", "reference / this"],
            [
                ["reference (scaled)", f"{slow:.1f}", "1", f"{kept_slow / 2**20:.0f}", "1"],
                [
                    "factored", f"{fast:.2f}", f"{slow / fast:.1f}", f"{kept_fast / 2**20:.0f}",
                    f"{kept_slow / kept_fast:.1f}",
                ],
            ],
        )  # fmt: skip
        print(f"\npeak of the factored step: {peak(train) / 2**20:.0f} MB")


def kept(work: Callable[[], object], head: CrossModalFusion, *inputs: Tensor) -> int:
    """Return the bytes of tensors that autograd keeps for the backward pass, each storage once.

    Parameters and inputs are not counted: they are there anyway.
    """
    storages: dict[int, int] = {}
    own = {x.untyped_storage().data_ptr() for x in (*head.parameters(), *inputs)}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in own:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        alive.append(x)  # else a freed storage's address could be taken by the next
        return x

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = work()
    total = sum(storages.values())
    del result
    return total


def tiles(args: argparse.Namespace) -> None:
    """Print the table of seconds by bytes of a tile, by the kernels in C where they run."""
    images, texts = inputs(args)
    refused = compiled_backend.refusal(images, texts)
    backend = factored if refused else compiled_backend
    print("factored" if refused else "compiled")
    for kind in KINDS:
        rows = []
        for with_global in (False, True):
            head = head_of(args, kind)
            row = ["local and global" if with_global else "local"]
            for megabytes in args.megabytes:
                with torch.no_grad():
                    t = seconds(
                        lambda h=head, w=with_global, m=megabytes: backend.score_parts(
                            h, images, texts, w, m * 2**20
                        ),
                        args.repeats,
                    )
                row.append(f"{t:.3f}")
            rows.append(row)
        table(f"**{kind}**, seconds", ["MB of a tile", *map(str, args.megabytes)], rows)


TABLES = {"scoring": scoring, "step": step, "tiles": tiles}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, default="scoring")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor()
    where = f"{device or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, seed {args.seed}, {vars(args)}")
    TABLES[args.table](args)
    print(f"\nhighest memory of the process: {resource.getrusage(0).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
