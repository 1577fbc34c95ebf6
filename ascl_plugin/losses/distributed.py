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
    def forward(ctx: Any, local: Tensor) -> Tensor:  # type: ignore[override]
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        size = len(gradient) // dist.get_world_size()
        return gradient[dist.get_rank() * size :][:size]


def gather(local: Tensor) -> Tensor:
    """(n, ...) of every process -> (world * n, ...) on every process, in order of rank.

    Differentiable: when every process then computes the same scalar and gradients are averaged
    over processes (as DDP does), they equal those of one process with the whole batch. Every
    process must hold the same shape.
    """
    return local if world_size() == 1 else _AllGather.apply(local)


def gather_features(features: F) -> F:
    """Features of all processes; words (regions) are padded to the longest of any process."""
    if world_size() == 1:
        return features
    if isinstance(features, ImageFeatures):
        values, pooled = features.regions, features.pooled
    else:
        values, pooled = features.words, None
    length = torch.tensor(values.shape[1], device=values.device)
    dist.all_reduce(length, op=dist.ReduceOp.MAX)
    short = int(length) - values.shape[1]
    mask = features.mask
    if mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    values = gather(torch.nn.functional.pad(values, (0, 0, 0, short)))
    # all_gather of bool is not there on every backend
    mask = gather(torch.nn.functional.pad(mask, (0, short)).to(torch.uint8)).bool()
    gathered: Any = TextFeatures(values, mask)
    if isinstance(features, ImageFeatures):
        gathered = ImageFeatures(values, mask, None if pooled is None else gather(pooled))
    return gathered
