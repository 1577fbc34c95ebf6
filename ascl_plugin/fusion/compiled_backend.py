"""The factored score on a CPU, forward only, its costly steps in kernels compiled from C.

As `factored`, but attention weights stay in a core's caches from the logits to the products and
norms of attended vectors, and the gate and the cosines of the global score are one pass. Inputs
that require a gradient go through `factored`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascl_plugin.fusion import c_kernels, factored
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import Images, Texts, places_of, wants_gradient
from ascl_plugin.fusion.proof import agrees
from ascl_plugin.fusion.tile_scores import Kernels, Parts

KERNELS = Kernels(c_kernels.attended, c_kernels.gated_cosines)
TOLERANCE = 1e-4
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(images: Images, texts: Texts) -> str | None:
    """Return the reason why the kernels cannot score these items, or None."""
    for places in (places_of(images), places_of(texts)):
        if places.device.type != "cpu":
            return f"features are on {places.device}, not on the CPU"
        if places.dtype not in _DTYPES:
            return f"features are {places.dtype}, kernels are for fp32, bf16 and fp16"
    return "no C compiler works here" if c_kernels.library() is None else None


def preferred(head: FusionParameters, images: Images, texts: Texts) -> bool:
    """Return True if "auto" should use the kernels: on a CPU, if no gradient is required."""
    if wants_gradient(head, images, texts) or refusal(images, texts) is not None:
        return False
    # what traces operations would miss a kernel's
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    plain = all(type(places_of(x)) in (Tensor, torch.nn.Parameter) for x in (images, texts))
    return plain and not traced


def proven(head: FusionParameters, images: Images, texts: Texts, with_global: bool) -> bool:
    """Return True if the kernels agree with `factored`, see `proof.agrees`."""
    kind = ("cpu", head.attention, head.num_heads, head.pool_words.kind)
    return agrees(kind, score_parts, TOLERANCE, head, images, texts, with_global)


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
        ValueError: not on a CPU, no C compiler, or a dtype that no kernel supports.
    """
    reason = refusal(images, texts)
    if reason is not None:
        raise ValueError(f"the compiled backend cannot score this: {reason}")
    kernels = None if wants_gradient(head, images, texts) else KERNELS
    return factored.score_parts(head, images, texts, with_global, memory, kernels=kernels)
