"""Pretrained encoders that may stay as they are while the heads train."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PUBLISHED = "pretrained"  # value of `weights` that asks for the weights a framework publishes


class PretrainedEncoder(nn.Module):
    """Base of adapters to pretrained encoders.

    A frozen one has no parameter that asks for a gradient, stays in evaluation mode whatever
    `train` says (batch statistics are the pretrained ones, dropout is off), and records no graph;
    so its output depends on its input alone and can be stored.

    Attributes:
        frozen: whether it is.
    """

    frozen: bool = False

    def freeze(self) -> None:
        """From here on, frozen."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """As of `nn.Module`, without effect on a frozen encoder."""
        return super().train(mode and not self.frozen)

    def gradients(self) -> torch.set_grad_enabled:
        """Context for `forward`: gradients as outside, but none when frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)


def weights_hash(state: dict[str, Tensor]) -> str:
    """Hash of all names, shapes, types and values of a state dict, 32 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        whole.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        whole.update(flat.view(torch.uint8).numpy().data)
    return whole.hexdigest()


def check_tune(tune: str, known: Sequence[str]) -> None:
    """Raise ValueError if `tune`, the option for how much of an encoder trains, is not known."""
    if tune not in known:
        raise ValueError(f"tune must be one of {', '.join(known)}, got {tune!r}")


def grid_side(num_regions: int) -> int:
    """Return the side of a square grid of `num_regions` cells.

    Raises:
        ValueError: no square number, or below 1.
    """
    side = math.isqrt(max(num_regions, 0))
    if side == 0 or side**2 != num_regions:
        raise ValueError(f"num_regions must be a square (36 = 6 x 6), got {num_regions}")
    return side
