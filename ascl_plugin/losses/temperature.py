"""A temperature that is learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.features import wide


class LearnedTemperature(nn.Module):
    """A temperature with a floor; its logarithm is the parameter `log`.

    Args:
        start: first value, in (0, inf).
        floor: lowest value, in (0, start]. A step that goes below is taken back to it by the next
            call, so the parameter never gets stuck there.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, start: float = 0.05, floor: float = 0.01) -> None:
        super().__init__()
        if not 0 < floor <= start < math.inf:
            raise ValueError(
                f"the lowest temperature must be above 0 and at most the first: got {floor} for a "
                f"start of {start}"
            )
        self.floor = floor
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, a scalar."""
        with torch.no_grad():
            self.log.clamp_(min=math.log(self.floor))
        return wide(self.log).exp()

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    def extra_repr(self) -> str:
        """Return value and floor, for `print(loss)`."""
        return f"{self.log.exp().item():.4g}, floor={self.floor}"
