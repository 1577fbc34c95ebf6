"""Normalization of frozen encoders' outputs by statistics of the training features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

INPUT_NORMS = ("none", "standard", "sqrt_standard")


class InputNorm(nn.Module):
    """Features less their training mean, over their training deviation, each channel its own.

    Args:
        width: channels D.
        root: take the signed square root first, sign(x) sqrt(|x|) (Perronnin et al., 2010):
            activations have a long tail.

    Shapes:
        (..., D) -> (..., D).

    Buffers:
        mean, deviation: (D,); fitted: True once `set` was called. All are saved with a model.
    """

    mean: Tensor
    deviation: Tensor
    fitted: Tensor

    def __init__(self, width: int, root: bool = False) -> None:
        super().__init__()
        self.root = root
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("fitted", torch.tensor(False))
        self._ready = False  # spares a GPU the question

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized.

        Raises:
            RuntimeError: no statistics yet.
        """
        if not self._ready:
            if not self.fitted:
                raise RuntimeError(
                    "input_norm has no statistics: call model.fit_input_norm(batches), or load a "
                    "trained model"
                )
            self._ready = True
        if self.root:
            x = signed_root(x)
        return (x - self.mean) / self.deviation

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    def set(self, moments: Moments) -> None:
        """Take mean and deviation; a channel that never varied is divided by 1."""
        deviation = moments.variance.sqrt()
        self.mean.copy_(moments.mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1))
        self.fitted.fill_(True)


def fit(norms: nn.ModuleDict, batches: Iterable[dict[str, Tensor]]) -> None:
    """Set norms without statistics from vectors (N, D) in batches, by the names of the norms.

    Raises:
        ValueError: no vectors for a norm; see `Moments.add`.
    """
    moments = {
        name: Moments(name, bool(norm.root)) for name, norm in norms.items() if not norm.fitted
    }
    for batch in batches:
        for name in moments.keys() & batch.keys():
            moments[name].add(batch[name])
    for name, found in moments.items():
        if not found.count:
            raise ValueError(f"input_norm: no {name} features in the batches to fit")
    for name, found in moments.items():
        norm = norms[name]
        assert isinstance(norm, InputNorm)
        norm.set(found)


class Moments:
    """Mean and variance of vectors that come in parts, in float64.

    Args:
        name: the name of the vectors, for messages.
        root: of their signed square roots.
    """

    def __init__(self, name: str, root: bool = False) -> None:
        self.name = name
        self.root = root
        self.count = 0
        self.mean = torch.zeros(())
        self.variance = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Add vectors (N, D) (Chan et al., 1979).

        Raises:
            ValueError: a value that is not finite.
        """
        if not len(x):
            return
        x = x.detach().double()
        x = signed_root(x) if self.root else x
        if not x.isfinite().all():
            raise ValueError(f"input_norm: {self.name} has a value that is not finite")
        mean, variance, total = x.mean(0), x.var(0, correction=0), self.count + len(x)
        share, step = len(x) / total, mean - self.mean.to(x)
        self.variance = (
            (1 - share) * self.variance.to(x)
            + share * variance
            + share * (1 - share) * step.square()
        )
        self.mean = self.mean.to(x) + share * step
        self.count = total


def signed_root(x: Tensor) -> Tensor:
    """Return sign(x) sqrt(|x|)."""
    return x.sign() * x.abs().sqrt()
