"""Interpolation of fine-tuned weights with those that training started from (WiSE-FT)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WiseFT:
    """Weights between the first and the trained ones, which validation uses in their place.

    ``theta = (1 - alpha) theta_0 + alpha theta_1``: Wortsman et al., "Robust fine-tuning of
    zero-shot models", CVPR 2022, equation 1. A low-rank update is a product B A of which B starts
    at 0: B alone is scaled, so that the merged weights are interpolated. Buffers stay as trained.

    Args:
        model: model that each rank holds whole, with the weights that training starts from.
        alpha: above 0 and below 1.

    Raises:
        ValueError: another alpha; low-rank updates that do not start at 0, or that scale what they
            are added to (DoRA).
    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"wise_ft_alpha must be 1 (off) or between 0 and 1, got {alpha}")
        self.alpha = alpha
        self._trained = {
            name: p
            for name, p in model.named_parameters()
            if p.requires_grad and "lora_A" not in name
        }
        for name, weight in self._trained.items():
            if "lora_magnitude" in name or ("lora_B" in name and weight.any()):
                raise ValueError(
                    f"wise_ft_alpha needs low-rank updates that start at 0 and are only added, but "
                    f"{name} is not: start from pretrained weights, without options of lora such "
                    "as use_dora or init_lora_weights"
                )
        self._first = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the interpolated weights within the context."""
        kept = {name: weight.detach().clone() for name, weight in self._trained.items()}
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.lerp_(self._first[name], 1 - self.alpha)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._trained.items():
                    weight.copy_(kept[name])
