"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of trained weights over steps, which validation uses in their place.

    After step n (from 1) it is ``d * average + (1 - d) * weights`` with
    ``d = min(decay, n / (n + 9))``: weights of the first steps do not linger.

    Args:
        model: model that each rank holds whole.
        decay: above 0 and below 1.

    Raises:
        ValueError: another decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay must be 0 (off) or between 0 and 1, got {decay}")
        self.decay = decay
        self._trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self._values = {k: p.detach().clone() for k, p in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, which is counted from 1."""
        rest = 1 - min(self.decay, step / (step + 9))
        for name, weight in self._trained.items():
            self._values[name].lerp_(weight, rest)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged weights within the context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """Return the averages by parameter name, on the CPU."""
        return {name: value.cpu() for name, value in self._values.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load what `state` returned."""
        for name, value in self._values.items():
            value.copy_(state[name])

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, weight in self._trained.items():
            kept = weight.clone()
            weight.copy_(self._values[name])
            self._values[name].copy_(kept)
