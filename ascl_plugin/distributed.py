"""Features and scores of all ranks, gathered with gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from ascl_plugin.features import F, ImageFeatures


def world_size() -> int:
    """Return the number of ranks in the default group; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllGather(torch.autograd.Function):
    """Concatenation over ranks; backward gives each rank the sum of its part's gradients.

    torch's own differentiable all-gather takes equal shapes only and is deprecated since 2.15.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, counts: list[int]) -> Tensor:  # type: ignore[override]
        ctx.counts = counts
        # a collective wants equal shapes: every rank sends as many rows as the longest
        sent = pad(local, (0, 0) * (local.ndim - 1) + (0, max(counts) - len(local))).contiguous()
        parts = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(parts, sent)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        # a copy, because others read the gradient too
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()], None


def _all_shapes(local: Tensor) -> list[list[int]]:
    """Return the first two sizes of every rank's tensor, in order of rank. Collective."""
    sizes = torch.zeros(world_size(), 2, dtype=torch.int64, device=local.device)
    sizes[dist.get_rank()] = torch.tensor([*local.shape, 0][:2])
    dist.all_reduce(sizes)
    return sizes.T.tolist()


def gather(local: Tensor) -> Tensor:
    """Return (sum of n, ...) from the (n, ...) of every rank, in order of rank. Collective.

    Differentiable: if every rank then computes the same scalar and gradients are averaged over
    ranks (as DDP does), they equal those of one process with the whole batch. n may differ between
    ranks, the rest of the shape may not.
    """
    if world_size() == 1:
        return local
    counts, _ = _all_shapes(local)
    return _AllGather.apply(local, counts)


def gather_features(features: F) -> F:
    """Return the features of all ranks; words (regions) are padded to the longest. Collective."""
    if world_size() == 1:
        return features
    name = "regions" if isinstance(features, ImageFeatures) else "words"
    values: Tensor = getattr(features, name)
    counts, lengths = _all_shapes(values)
    short = max(lengths) - values.shape[1]
    mask = features.mask
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    # some backends cannot gather bool
    mask = _AllGather.apply(pad(mask, (0, short)).to(torch.uint8), counts).bool()
    gathered = {name: _AllGather.apply(pad(values, (0, 0, 0, short)), counts), "mask": mask}
    if features.pooled is not None:
        gathered["pooled"] = _AllGather.apply(features.pooled, counts)
    return replace(features, **gathered)
