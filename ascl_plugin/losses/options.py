"""Ranges of the losses' options."""

from __future__ import annotations

import math

from torch import Tensor

CHOICES = {
    "form": ("nll", "ratio", "sigmoid"),
    "negative_mode": ("sum", "own", "pairwise"),
    "violations": ("drop", "keep"),
    "reduction": ("mean", "sum", "none", "clip"),
}


def check_options(
    *,
    temperature: float | Tensor = 1.0,
    balance: float = 0.5,
    margin: float = 0.0,
    focal: float = 0.0,
    negative_weight: float = 1.0,
    bias: float | Tensor = 0.0,
    **choices: str,
) -> None:
    """Raise ValueError if an option is outside its range; `choices`: see `CHOICES`."""
    for name, scalar in (("temperature", temperature), ("bias", bias)):
        if isinstance(scalar, Tensor) and scalar.numel() != 1:
            raise ValueError(f"{name} must be one number, got a tensor of {tuple(scalar.shape)}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be in (0, inf), got {temperature}")
    if not -math.inf < bias < math.inf:
        raise ValueError(f"bias must be finite, got {bias}")
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be in [0, 1], got {balance}")
    not_negative = {"margin": margin, "focal": focal, "negative_weight": negative_weight}
    for name, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be in [0, inf), got {value}")
    for name, choice in choices.items():
        if choice not in CHOICES[name]:
            *others, last = map(repr, CHOICES[name])
            raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {choice!r}")
    if choices.get("reduction") == "clip" and choices.get("form") == "sigmoid":
        raise ValueError("reduction='clip' halves two directions, form='sigmoid' has none")
    if focal and choices.get("negative_mode", "pairwise") != "pairwise":
        raise ValueError("focal weighs pairs of scores: it needs negative_mode='pairwise'")
