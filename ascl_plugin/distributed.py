"""Bringing the features and scores of all processes together, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ascl_plugin.features import F, ImageFeatures, TextFeatures


def world_size() -> int:
    """Processes in the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllGather(torch.autograd.Function):
    """Concatenation over processes; backward hands each process the sum of its part's gradients."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, counts: list[int]) -> Tensor:  # type: ignore[override]
        ctx.counts = counts
        short = max(counts) - len(local)
        # every process sends as many rows as the one with the most
        sent = torch.cat([local, local.new_zeros(short, *local.shape[1:])]) if short else local
        sent = sent.contiguous()
        parts = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(parts, sent)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        total = gradient.clone(memory_format=torch.contiguous_format)  # it is others' to read, too
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()], None


def _all_shapes(local: Tensor) -> list[list[int]]:
    """The first two sizes of the tensor of each process, in order of rank."""
    sizes = torch.zeros(world_size(), 2, dtype=torch.int64, device=local.device)
    sizes[dist.get_rank()] = torch.tensor([*local.shape, 0][:2])
    dist.all_reduce(sizes)
    return sizes.T.tolist()


def gather(local: Tensor) -> Tensor:
    """(n, ...) of every process -> (sum of n, ...) on every process, in order of rank.

    Differentiable: when every process then computes the same scalar and gradients are averaged
    over processes (as DDP does), they equal those of one process with the whole batch. n may
    differ between processes, the rest of the shape may not.
    """
    if world_size() == 1:
        return local
    counts, _ = _all_shapes(local)
    return _AllGather.apply(local, counts)


def gather_features(features: F) -> F:
    """Features of all processes; words (regions) are padded to the longest of any process."""
    if world_size() == 1:
        return features
    if isinstance(features, ImageFeatures):
        values, pooled = features.regions, features.pooled
    else:
        values, pooled = features.words, None
    counts, lengths = _all_shapes(values)
    short = max(lengths) - values.shape[1]
    mask = features.mask
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    values = _AllGather.apply(torch.nn.functional.pad(values, (0, 0, 0, short)), counts)
    # all_gather of bool is not there on every backend
    mask = torch.nn.functional.pad(mask, (0, short)).to(torch.uint8)
    mask = _AllGather.apply(mask, counts).bool()
    gathered: Any = TextFeatures(values, mask)
    if isinstance(features, ImageFeatures):
        pooled = None if pooled is None else _AllGather.apply(pooled, counts)
        gathered = ImageFeatures(values, mask, pooled)
    return gathered
