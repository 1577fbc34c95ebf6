"""Pretrained encoders that may stay as they are while the heads train."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


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
