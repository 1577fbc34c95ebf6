"""The factored score on a GPU, forward only, with its costly part in one fused kernel.

As `factored`, but the local scores and mean attention of a tile of pairs come from
`triton_kernels`, which writes no logit to memory. The kernels have been run by Triton's interpreter
and compiled for GPUs; no speed is claimed. On each device their first scores are compared with
those of `factored` before any is returned (`proven`; on a GPU, tests/fusion/test_triton.py compares
more).

Inputs that require a gradient go through `factored`: its backward pass needs the attention weights
of a tile, which a fused kernel does not keep.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor

from ascl_plugin.fusion import factored
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import (
    Images,
    PreparedImages,
    PreparedTexts,
    Texts,
    places_of,
    wants_gradient,
)
from ascl_plugin.fusion.proof import agrees
from ascl_plugin.fusion.tile_scores import Parts, global_score

# Numbers of a tile that a thread holds of each of logits, weights and products with Gram matrices.
# Products that are exact to fp32 take more registers, so their tiles are smaller.
PER_THREAD = {torch.bfloat16: 32, torch.float16: 32, torch.float32: 8}
FEWEST, MOST = 128, 256  # threads
LONGEST = 128  # places of an item, as padded
COLUMNS = 64  # words side by side, unless one text alone has more
TOLERANCE = {torch.bfloat16: 0.03, torch.float16: 0.01, torch.float32: 0.003}  # fp32: with TF32


def refusal(images: Images, texts: Texts) -> str | None:
    """Return the reason why the kernels cannot score these items, or None."""
    x, y = places_of(images), places_of(texts)
    dtype = _dtype(x, y)
    lacking = _lacking(x.device, dtype)
    if lacking is not None:
        return lacking
    rows, _, words = kernel_tile(x.shape[1], y.shape[1], dtype)
    if max(rows, words) > LONGEST or rows * words > MOST * PER_THREAD[dtype]:
        name = str(dtype).removeprefix("torch.")
        return f"{x.shape[1]} regions and {y.shape[1]} words in {name} are too many for a tile"
    return None


def preferred(head: FusionParameters, images: Images, texts: Texts) -> bool:
    """Return True if "auto" should use the kernels: on a GPU, if no gradient is required."""
    on_gpu = places_of(images).device.type == "cuda" and head.pool_words.kind == "mean"
    return on_gpu and not wants_gradient(head, images, texts) and refusal(images, texts) is None


def proven(head: FusionParameters, images: Images, texts: Texts, with_global: bool) -> bool:
    """Return True if the kernel for such items agrees with `factored`, see `proof.agrees`."""
    x, y = places_of(images), places_of(texts)
    dtype = _dtype(x, y)
    shape = kernel_tile(x.shape[1], y.shape[1], dtype)
    kind = (str(x.device), head.attention, head.num_heads, dtype, *shape)
    return agrees(kind, score_parts, TOLERANCE[dtype], head, images, texts, with_global)


def score_parts(
    head: FusionParameters,
    images: Images,
    texts: Texts,
    with_global: bool = True,
    memory: int | None = None,
) -> Parts:
    """Return S_local and S_global (I, T), tile by tile; by `factored` if a gradient is wanted.

    Args:
        head, images, texts, with_global, memory: as `factored.score_parts`.

    Raises:
        ValueError: no GPU, no Triton, or a dtype or number of places that no kernel supports.
    """
    reason = refusal(images, texts)
    if reason is not None:
        raise ValueError(f"the triton backend cannot score this: {reason}")
    if head.pool_words.kind != "mean":
        raise ValueError(f"the triton backend has no word_pooling {head.pool_words.kind!r}")
    scorer = None if wants_gradient(head, images, texts) else score_tile
    return factored.score_parts(head, images, texts, with_global, memory, scorer)


def score_tile(
    head: FusionParameters, images: PreparedImages, texts: PreparedTexts, with_global: bool = True
) -> Parts:
    """Score a tile as `tile_scores.score_tile`, all but the global score in one kernel."""
    from ascl_plugin.fusion import triton_kernels as tiles

    dtype = _dtype(images.queries, texts.queries)
    (n, regions, heads, width), (m, words) = images.queries.shape, texts.queries.shape[:2]
    rows, together, columns = kernel_tile(regions, words, dtype)
    size = rows * together * columns
    new = images.norms.new_empty
    local = new(n, m)
    over_words = new((m, n, heads * words) if with_global else 1)
    over_regions = new((n, m, heads * regions) if with_global else 1)

    grams = _padded(images.gram, heads, rows, dtype), _padded(texts.gram, heads, columns, dtype)
    alone = (images.norms, texts.norms, images.shares, texts.shares)
    common = (*grams, *(x.contiguous() for x in alone), local, over_words, over_regions)
    options = {
        "HEADS": heads,
        "WIDTH": width,
        "CHUNK": min(64 if dtype.itemsize == 2 else 32, max(16, _power_of_two(width))),
        "ROWS": rows,
        "TEXTS": together,
        "WORDS": columns,
        "PRECISION": _precision(dtype),
        "WITH_GLOBAL": with_global,
        "num_warps": (FEWEST if size <= FEWEST * PER_THREAD[dtype] else MOST) // 32,
        "num_stages": 1,  # registers for loads ahead are left to a second program
        "enable_fp_fusion": True,
    }
    blocks, u1 = n * -(-m // together), float(head.direction_weight)  # of an int: another kernel
    device = local.device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if images.toward is None or texts.toward is None:
            features = [x.to(dtype).contiguous() for x in (images.queries, texts.keys)]
            scales = float(head.image_to_text.scale), float(head.text_to_image.scale)
            tiles.parameter_free[(blocks,)](
                *features, *common, n, m, regions, words, *scales, u1, **options
            )
        else:
            programs = min(blocks, _programs(device))
            scratch = grams[0].new_empty(programs, heads, size)
            of_images = (images.queries, images.toward, images.keys)
            of_texts = (texts.queries, texts.toward, texts.keys)
            features = [x.to(dtype).contiguous() for x in (*of_images, *of_texts)]
            tiles.projected[(programs,)](
                *features, *common, scratch, n, m, regions, words, u1, **options
            )
    if not with_global:
        return local, local
    return local, global_score(over_words, over_regions, images, texts)


def kernel_tile(regions: int, words: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Return rows for an image's regions, texts of a tile, and columns for a text's words."""
    rows, columns = max(16, _power_of_two(regions)), max(16, _power_of_two(words))
    together = min(COLUMNS, FEWEST * PER_THREAD[dtype] // rows) // columns
    return rows, max(1, together), columns


def _padded(gram: Tensor, heads: int, size: int, dtype: torch.dtype) -> Tensor:
    """Pad Gram matrices: (N, H, size, size) per head, or (N, H, H, size, size) per pair of heads.

    They are bf16 beside bf16 features, otherwise fp32: fp16 may hold a feature and not its square.
    """
    if gram.shape[1] != heads:
        gram = gram.unflatten(3, (heads, -1)).unflatten(2, (heads, -1)).squeeze(1).transpose(2, 3)
    missing = size - gram.shape[-1]
    gram = gram.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
    return torch.nn.functional.pad(gram, (0, missing, 0, missing)).contiguous()


def _power_of_two(number: int) -> int:
    """Return the smallest power of two that is no less."""
    return 1 << max(0, number - 1).bit_length()


def _lacking(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return what keeps kernels from running on `dtype` on `device`, or None."""
    if dtype not in PER_THREAD:
        return f"features are {dtype}, kernels are for fp32, bf16 and fp16"
    if not _installed():
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        from ascl_plugin.fusion import triton_kernels as tiles

        if not tiles.INTERPRETED:
            return "TRITON_INTERPRET was set after the kernels were imported"
        return "Triton's interpreter multiplies no bf16" if dtype == torch.bfloat16 else None
    if device.type != "cuda" or torch.version.cuda is None:
        return f"features are on {device}, not on an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{torch.cuda.get_device_name(device)} has a compute capability below 8.0"
    return None


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return the dtype of a logit's factors, the wider of both.

    Autocast has no say: half precision would change the order of neighbors in a ranking.
    """
    return torch.promote_types(x.dtype, y.dtype)


def _precision(dtype: torch.dtype) -> str:
    """Return the precision of fp32 products: TF32 if torch allows it, else three of them."""
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return "tf32x3" if exact else "tf32"


def _programs(device: torch.device) -> int:
    """Return the number of programs that registers let run at once."""
    if device.type != "cuda":
        return 2
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count
