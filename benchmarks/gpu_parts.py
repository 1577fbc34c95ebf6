"""The parts of `gpu_check.py`: each measures rows of tables, whatever happens to another row."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from device_cases import CASES, Place, difference
from fusion import KINDS, floor, head_of, inputs, per_caption_loop
from measure import peak, seconds
from torch import Tensor, nn

import ascl_plugin
from ascl_plugin import AsymmetryLoss, CrossModalFusion, available, rerank, score_matrix
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.fusion import factored, reference, triton_backend

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
NAMES = {FP32: "fp32", BF16: "bf16", FP16: "fp16"}
OFF = {FP32: 1e-4, FP16: 0.01, BF16: 0.03}  # allowed of a score
OFF_SHARE = {FP32: 1e-4, FP16: 0.02, BF16: 0.1}  # and of the largest number of any tensor
SHAPES = ((36, 14), (36, 20), (5, 7), (60, 30))  # regions, words
TILES = ((16, 64), (64, 128))  # numbers a thread, columns of a kernel's tile: beside the default
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Device and sizes of a run, and where its rows go.

    Attributes:
        device: "cuda" or "cpu".
        toy: True for sizes that a CPU serves in seconds.
        limit: seconds of the part.
        write: function that is given each row.
    """

    device: str
    toy: bool
    limit: float
    write: Callable[..., None]

    def of(self, full: Any, toy: Any) -> Any:
        """Return one of two sizes."""
        return toy if self.toy else full

    @contextmanager
    def row(self, table: str, **labels: object) -> Iterator[Row]:
        """Give a row to fill; write it, with the error if there is one."""
        found: Row = dict(labels)
        try:
            yield found
            self.write(table=table, row=found)
        except torch.OutOfMemoryError:
            self.write(table=table, row=found | {"note": "out of memory"})
        except Exception as error:
            found["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            lines = "".join(traceback.format_exception(error))
            self.write(table=table, row=found, traceback=lines[-6000:])
        gc.collect()  # a failed row's tensors
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def options(self, images: int = 1, texts: int = 1) -> Namespace:
        """Return options of `fusion.py`."""
        sizes = self.of({"dim": 1024, "heads": 8}, {"dim": 16, "heads": 2})
        return Namespace(images=images, texts=texts, device=self.device, seed=0, **sizes)

    def autocast(self, dtype: torch.dtype) -> torch.autocast:
        """Return mixed precision in a half-precision dtype; none for fp32."""
        return torch.autocast(self.device, BF16, enabled=dtype == BF16)


def cast(images: Any, texts: Any, dtype: torch.dtype) -> tuple[ImageFeatures, TextFeatures]:
    """Return features in a precision."""
    images = replace(images, regions=images.regions.to(dtype), pooled=images.pooled.to(dtype))
    return images, replace(texts, words=texts.words.to(dtype))


def measured(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the least seconds of some runs, and the peak of memory in MB."""
    found: list[float] = []
    taken = peak(lambda: found.append(seconds(work, repeats)))
    return found[0], taken / 2**20


def compiling(s: Setting) -> None:
    """Compile what other parts use, on all cores at once: one after another takes minutes."""
    tasks = [  # the last shape shares its kernels with the second
        *product(KINDS, (True,), NAMES, SHAPES[:3], (None,)),
        *product(KINDS, (False,), (FP32, BF16), SHAPES[:2], (None,)),
        *product(KINDS, (False,), (BF16,), SHAPES[:2], TILES),
    ]
    tasks = s.of(tasks, tasks[:1])
    with s.row("compilation") as row:
        start, cores = time.perf_counter(), min(16, os.cpu_count() or 1, len(tasks))
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            found = pool.starmap(partial(compiled, s.options()), tasks, chunksize=1)
        row |= {"kernels": len(tasks), "seconds": time.perf_counter() - start}
        row["longest"] = max((x for x in found if isinstance(x, float)), default=0.0)
        if errors := [x for x in found if isinstance(x, str)]:
            raise RuntimeError(f"{len(errors)} failed: {errors}")


def compiled(
    options: Namespace, kind: str, whole: bool, dtype: torch.dtype, shape: tuple[int, int],
    tile: tuple[int, int] | None,
) -> float | str:  # fmt: skip
    """Compile the kernel of these sizes by a first use; return the seconds, or an error."""
    default = triton_backend.PER_THREAD[dtype], triton_backend.COLUMNS
    triton_backend.PER_THREAD[dtype], triton_backend.COLUMNS = tile or default
    features = cast(*inputs(options, regions=shape[0], words=shape[1]), dtype)
    start = time.perf_counter()
    try:
        with torch.no_grad():
            triton_backend.score_parts(head_of(options, kind), *features, whole)
        return time.perf_counter() - start
    except Exception as error:
        return f"{kind} {dtype} {shape} {tile}: {type(error).__name__}: {str(error)[:300]}"
    finally:
        triton_backend.PER_THREAD[dtype], triton_backend.COLUMNS = default


def kernels(s: Setting) -> None:
    """Compare kernels with the equations, and the order of neighbors of trained features."""
    dtypes = s.of(list(NAMES), [FP32, FP16])  # Triton's interpreter multiplies no bf16
    for kind, shape, dtype in product(KINDS, s.of(SHAPES, SHAPES[2:3]), dtypes):
        sizes = {"regions": shape[0], "words": shape[1]}
        labels = {"attention": kind, **sizes, "dtype": NAMES[dtype]}
        with s.row("kernels", **labels) as row, torch.no_grad():
            options = s.options(*s.of((40, 100), (1, 3)))
            head, (images, texts) = head_of(options, kind), inputs(options, **sizes)
            images, texts = (replace(x, mask=holes(x)) for x in (images, texts))
            found = [triton_backend.score_parts(head, *cast(images, texts, dtype)) for _ in "123"]
            row["off factored"] = worst(found[0], factored.score_parts(head, images, texts))
            few = cast(images[:2], texts[:3], torch.float64)
            exact = reference.score_parts(deepcopy(head).double(), *few)
            row["off equations"] = worst([x[:2, :3] for x in found[0]], exact)
            row["between runs"] = max(worst(x, found[0]) for x in found)  # of a race
            row["ok"] = max(row["off factored"], row["off equations"]) <= OFF[dtype]
            row["ok"] &= row["between runs"] < 1e-6
    for kind in KINDS:
        neighbors(s, kind, dtypes)


def holes(items: ImageFeatures | TextFeatures) -> Tensor:
    """Draw a mask, of which the first place is real."""
    values = items.regions if isinstance(items, ImageFeatures) else items.words
    mask = torch.rand(values.shape[:2], device=values.device) < 0.8
    mask[:, 0] = True
    return mask


def worst(found: Any, wanted: Any) -> float:
    """Return the largest difference of scores; infinity for nan."""
    pairs = zip(found, wanted, strict=True)
    return max((x - y).abs().max().nan_to_num(torch.inf).item() for x, y in pairs)


def neighbors(s: Setting, kind: str, dtypes: list[torch.dtype]) -> None:
    """Train a head on made captions; compare its ten best by fast ways with those by fp32."""
    options = s.options(*s.of((500, 2500), (4, 6)))
    images, texts = inputs(options, regions=s.of(36, 5), words=s.of(14, 7))
    owner = torch.arange(len(texts), device=s.device) * len(images) // len(texts)
    seen = torch.randint(images.regions.shape[1], texts.words.shape[:2], device=s.device)
    # a word is a region of its image, and noise
    texts = TextFeatures(images.regions[owner[:, None], seen] + texts.words / 2)
    head = head_of(options, kind)
    optimizer = torch.optim.Adam(head.parameters(), 1e-3)
    for step in range(s.of(40, 2)):
        some = (torch.arange(s.of(64, 3), device=s.device) * 7 + step) % len(images)
        optimizer.zero_grad()
        pairs = images[some], texts[some * len(texts) // len(images)]
        AsymmetryLoss()(head(*pairs, backend="factored")).backward()
        optimizer.step()
    with torch.no_grad():
        expected = ten_best(head(images, texts, backend="factored"))
    for way, dtype in product(("factored", "triton"), dtypes):
        labels = {"attention": kind, "way": way, "dtype": NAMES[dtype]}
        row_of = s.row("neighbors of trained heads, % of queries", **labels)
        with row_of as row, torch.no_grad():
            found = ten_best(head(*cast(images, texts, dtype), backend=way))
            same = [x == y for x, y in zip(found, expected, strict=True)]
            row["same first"] = 100 * min(x[:, 0].double().mean().item() for x in same)
            row["same ten in order"] = 100 * min(x.all(1).double().mean().item() for x in same)
            row["ok"] = dtype != FP32 or row["same first"] > 99


def ten_best(scores: Tensor) -> list[Tensor]:
    """Return the ten best of every row, and of every column."""
    return [x.topk(min(10, x.shape[1]), 1).indices for x in (scores, scores.T)]


def library(s: Setting) -> None:
    """Compare every part of the library with the CPU in fp64."""
    for dtype, (name, case) in product((FP32, FP16, BF16), CASES.items()):
        exact = name.startswith(("rerank", "metrics"))  # whole numbers
        if s.toy and s.device == "cpu" and dtype != FP32:
            continue  # a test has them
        with s.row("library", case=name, dtype=NAMES[dtype]) as row:
            expected = case(Place("cpu", dtype if exact else torch.float64))
            row["off"] = difference(case(Place(s.device, dtype)), expected, dtype != FP32)
            row["ok"] = row["off"] <= (0.001 if exact else OFF_SHARE[dtype])


def scoring(s: Setting) -> None:
    """Time scores against a loop over captions and the bare product; sizes of tiles; a matrix."""
    size, took = s.of(8192, 128), {}
    with s.row("matrix product, bf16", size=size) as row:
        x, y = (torch.randn(size, size, device=s.device, dtype=BF16) for _ in "12")
        took["rate"] = 2 * size**3 / seconds(partial(torch.matmul, x, y), 10)
        row["TFLOP/s"] = took["rate"] / 1e12
    images, texts = inputs(s.options(*s.of((1000, 1000), (2, 3))), regions=s.of(36, 5))
    pairs = len(images) * len(texts)
    flops = 2 * images.regions.numel() * int(texts.mask.sum())

    def timed(row: Row, name: str, work: Callable[[], object], repeats: int = 3) -> None:
        t, row["peak MB"] = measured(work, s.of(repeats, 0))
        took[name] = t
        row |= {"ms": 1e3 * t, "loop / this": took["loop"] / t if "loop" in took else None}
        row |= {"this / floor": t / took["floor"], "pairs/s": pairs / t}
        row["% of product's rate"] = 100 * flops / t / took["rate"]

    for dtype in (BF16, FP32):  # the last stays the floor
        with s.row("scoring", attention="", scores="", way="floor", dtype=NAMES[dtype]) as row:
            timed(row, "floor", partial(floor, *cast(images, texts, dtype)))
    for kind, whole in product(KINDS, (False, True)):
        head = head_of(s.options(), kind, local_weight=0.8 if whole else 1.0)
        labels = {"attention": kind, "scores": "local and global" if whole else "local"}
        loop = partial(per_caption_loop, head, images, with_global=whole)
        for dtype in (BF16, FP32):  # likewise
            row_of = s.row("scoring", **labels, way="loop", dtype=NAMES[dtype])
            with row_of as row, torch.no_grad(), s.autocast(dtype):
                loop(texts[:8])  # warm
                timed(row, "loop", partial(loop, texts), 0)
        for way, dtype in product(("factored", "triton"), s.of((FP32, BF16), (FP32,))):
            with s.row("scoring", **labels, way=way, dtype=NAMES[dtype]) as row, torch.no_grad():
                given = cast(images, texts, dtype)
                timed(row, f"{kind} {dtype}", partial(head, *given, backend=way))
    for megabytes in s.of((64, 256, 1024, 4096), (1,)):
        score = partial(factored.score_parts, with_global=False, memory=megabytes * 2**20)
        sweep(s, score, images, texts, way="factored fp32", tile=f"{megabytes} MB")
    half, default = s.of(BF16, FP16), (triton_backend.PER_THREAD[BF16], triton_backend.COLUMNS)
    for tile in s.of((default, *TILES, default), (default,)):  # and left so
        triton_backend.PER_THREAD[half], triton_backend.COLUMNS = tile
        score = partial(triton_backend.score_parts, with_global=False)
        given = cast(images, texts, half)
        sweep(s, score, *given, way=f"triton {NAMES[half]}", tile=f"{tile} a thread, columns")
    count, most = s.of((5000, 25000), (8, 20))
    images, texts = inputs(s.options(count, most))
    for kind, dtype in product(KINDS, s.of((BF16, FP32), (FP32,))):
        labels = {"attention": kind, "dtype": NAMES[dtype]}
        with s.row(f"score_matrix, {count:,} images", **labels) as row:
            rate = pairs / took.get(f"{kind} {dtype}", 1.0)
            some = max(1, min(most, int(10 * rate / count)))  # what 10 seconds have room for
            given, head = cast(images, texts[:some], dtype), head_of(s.options(), kind)
            work = partial(score_matrix, head, *given, memory=s.of(2**34, 2**26))
            row |= {"texts": some, "seconds": seconds(work, 0)}
            row["pairs/s"] = count * some / row["seconds"]
            row[f"{most:,} texts, s"] = count * most / row["pairs/s"]


def sweep(s: Setting, score: Callable[..., object], *given: Any, **labels: str) -> None:
    """Time local scores of both attentions with a size of tiles."""
    with s.row("tiles, local scores, ms", **labels) as row, torch.no_grad():
        for kind in KINDS:
            work = partial(score, head_of(s.options(), kind), *given)
            row[kind] = 1e3 * seconds(work, s.of(2, 0))


def training_step(s: Setting) -> None:
    """Time a step over captions, positives, and noised versions, against plain autograd."""
    loss = AsymmetryLoss()

    def train(score: Callable[..., Tensor], head: nn.Module, v: Any, w: Any, dtype: Any) -> None:
        v = replace(v, regions=v.regions.detach().requires_grad_())
        head.zero_grad()
        with s.autocast(dtype):
            value = loss(*score(head, v, w).split(len(v), dim=1))
        value.backward()

    for n, kind, dtype in product(s.of((64, 256, 1024), (3,)), KINDS, (FP32, BF16)):
        images, texts = inputs(s.options(n, n))
        noisy = replace(texts, words=texts.words + 0.1 * torch.randn_like(texts.words))
        four, head = concatenate([texts, noisy, texts, noisy]), head_of(s.options(), kind)
        plain = None
        ways = {"equations, autograd": partial(per_caption_loop, with_global=True)}
        ways = (ways if n < 1024 else {}) | {"ours": CrossModalFusion.forward}
        for way, score in ways.items():
            labels = {"attention": kind, "batch": n, "precision": NAMES[dtype], "way": way}
            with s.row("training step", **labels) as row:
                work = partial(train, score, head, images, four, dtype)
                t, row["peak MB"] = measured(work, 0 if n == 1024 else 2)
                plain = plain if way == "ours" else t
                row |= {"ms": 1e3 * t, "autograd / this": plain and plain / t}


def reranking(s: Setting) -> None:
    """Time re-ranking of a large matrix by every method, and the fit of a bank."""
    import rerank as opponents

    bank, gallery = s.of((10_000, 1_000_000), (20, 50))
    with s.row("fit of a bank", method="nnn", bank=bank, gallery=gallery) as row:
        drawn = (torch.randn(n, 512, device=s.device) for n in (bank, gallery))
        vectors = [nn.functional.normalize(x) for x in drawn]
        if make := getattr(ascl_plugin, "Reranker", None):  # in versions that have it
            ranker, query = make("nnn"), vectors[0][:1] @ vectors[1].T
            fit = partial(ranker.fit, bank_vectors=vectors[0], gallery_vectors=vectors[1])
            row["seconds"], row["peak MB"] = measured(fit, 0)
            row["one query, ms"] = 1e3 * seconds(partial(ranker.transform, query), 5)
        del drawn, vectors
    images, texts = s.of((5000, 25000), (20, 60))
    options = Namespace(images=images, texts=texts, seed=0, dim=128)
    scores = opponents.scores_of(options).to(s.device)
    slow, bare = "k_reciprocal", None
    works = {"floor: two passes of top-k": partial(opponents.floor, scores, 20)}
    for method in sorted(available("rerank"), key=lambda name: name == slow):
        works[method] = partial(rerank, scores, method=method)
    for name, work in works.items():
        with s.row(f"rerank, {images:,} x {texts:,}", method=name) as row:
            t, row["peak MB"] = measured(work, 0 if name == slow else 2)
            bare = bare or t
            row |= {"seconds": t, "this / floor": t / bare}


def open_clip_step(s: Setting) -> None:
    """Time a step of a CLIP with our loss against open_clip's, and of the attached fusion."""
    import open_clip

    from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
    from ascl_plugin.adapters.towers.open_clip import attach

    name, n, side = s.of(("ViT-B-32", 256, 224), ("toy", 4, 32))
    if s.toy:
        tower = {"layers": 1, "width": 32}
        text = {**tower, "context_length": 16, "vocab_size": 49408, "heads": 2}
        picture = {**tower, "image_size": side, "head_width": 16, "patch_size": 16}
        file = Path(tempfile.mkdtemp(), "toy.json")
        file.write_text(json.dumps({"embed_dim": 16, "vision_cfg": picture, "text_cfg": text}))
        open_clip.add_model_config(file)
    captions = [f"picture {row} of a red car and a dog" for row in range(n)]
    pixels = torch.randn(n, 3, side, side, device=s.device)
    model = open_clip.create_model(name).to(s.device).train()
    tokens = open_clip.get_tokenizer(name)(captions).to(s.device)
    head = {"name": "cross_modal", "num_heads": s.of(8, 2), "attention": "parameter-free"}
    whole = attach(name, fusion=head, dim=s.of(512, 16), tune="full").to(s.device).train()
    batch = {k: v.to(s.device) for k, v in whole.text_encoder.tokenize(captions).items()}
    batch |= {"pixel_values": pixels, "noise_seed": torch.arange(n)}
    ways: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "ClipLoss": (model, lambda: open_clip.ClipLoss()(*model(pixels, tokens)[:3])),
        "attached fusion": (whole, lambda: AsymmetryLoss()(**whole(batch, "gaussian"))),
    }
    for kind in ("none", "gaussian"):
        loss = OpenClipAsymmetryLoss(negatives=kind)
        ways[f"ours, negatives {kind}"] = model, lambda f=loss: f(*model(pixels, tokens)[:3])
    bare = None

    def step(trained: nn.Module, value: Callable[[], Tensor]) -> None:
        trained.zero_grad(set_to_none=True)
        with s.autocast(BF16):
            loss = value()
        loss.backward()

    for way, work in ways.items():
        with s.row(f"{name}, batch {n}, bf16, forward and backward", loss=way) as row:
            t, row["peak MB"] = measured(partial(step, *work), s.of(10, 1))
            bare = bare or t
            row |= {"ms": 1e3 * t, "% more than ClipLoss": 100 * (t / bare - 1)}


def recipe(s: Setting) -> None:
    """Run the recipe on drawn scenes, for as long as the limit has room for."""
    import training_loop

    options = "--mixed_precision bf16 --log_with none --steps_only --save_every 0 --log_every 5"
    options += f" --stop_after {s.of(max(5.0, min(60.0, s.limit - 40)), 2.0):.0f}"
    if s.toy:
        options += " --scenes_train 24 --scenes_val 4 --scenes_test 4 --batch_size 8 --epochs 99"
        options += " --align_epochs 1 --balanced_pairs 2"
    sys.argv = sys.argv[:1]
    with s.row("recipe, drawn scenes, bf16") as row:
        row["exit status"], stages, rates = training_loop.run(
            options.split() + ["--cpu", "true"] * (s.device == "cpu")
        )  # 130: stopped after its time
        row |= rates
    for stage in stages:
        s.write(table="stages of the recipe", row=stage)


PARTS: dict[str, Callable[[Setting], None]] = {
    "compile": compiling, "kernels": kernels, "library": library, "scoring": scoring,
    "step": training_step, "rerank": reranking, "open_clip": open_clip_step, "recipe": recipe,
}  # fmt: skip
