"""Right scores against wrong ones, pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ascl_plugin.features import wide
from ascl_plugin.losses.options import check_options


def contrast_loss(
    right: Tensor,
    wrong: Tensor,
    *,
    temperature: float | Tensor,
    margin: float = 0.0,
    focal: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of pairs of scores, of which the right one should be higher.

    For a pair with scores s+, s-, temperature t and margin m::

        (1 - p)^focal * log(1 + e^((s- - s+ + m) / t)),   p = sigmoid((s+ - s-) / t)

    The focal factor turns to pairs that are not won yet. It is a constant for the gradient.

    What is put side by side decides what is learnt. A true caption against its edited copy can be
    told apart without the image. Balanced pairs cannot: image A with a text true of A against A
    with a text true of B, and B the other way round, both texts made by the same rule.

    Args:
        right: scores of the right answers, of any shape.
        wrong: scores of the wrong answers, of the same shape.
        temperature: t, in (0, inf); a number or a tensor of one element.
        margin: m, in units of the score, in [0, inf).
        focal: exponent of the focal factor, in [0, inf).
        weight: weights of the pairs in the mean, of the same shape, in [0, inf); the sum is
            divided by their sum. None: all equal.

    Returns:
        A scalar, fp32 or wider; 0 if nothing has a weight.

    Raises:
        ValueError: shapes that differ, a weight below 0, or an option out of range.

    Examples:
        >>> import torch
        >>> right, wrong = torch.tensor([0.5, 0.4]), torch.tensor([0.3, 0.4])
        >>> round(contrast_loss(right, wrong, temperature=0.1).item(), 4)
        0.41
    """
    check_options(temperature=temperature, margin=margin, focal=focal)
    for name, given in (("wrong", wrong), ("weight", weight)):
        if given is not None and given.shape != right.shape:
            raise ValueError(
                f"{name} must have right's shape {tuple(right.shape)}, got {tuple(given.shape)}"
            )
    terms = contrast_terms(right, wrong, temperature, margin, focal)
    if weight is None:
        weight = torch.ones_like(terms)
    elif not (weight >= 0).all():
        raise ValueError(f"weight must be in [0, inf), got {weight.min().item()}")
    return (terms * shares(weight.to(terms.dtype))).sum()


def contrast_terms(
    right: Tensor, wrong: Tensor, temperature: float | Tensor, margin: float, focal: float
) -> Tensor:
    """Return the loss of each pair, fp32 or wider; shapes broadcast. See `contrast_loss`."""
    right, wrong = wide(right), wide(wrong)
    terms = softplus((wrong - right + margin) / temperature)
    if focal:
        lost = torch.sigmoid(((wrong - right) / temperature).detach())  # 1 - p
        terms = terms * lost**focal
    return terms


def shares(weight: Tensor) -> Tensor:
    """Return `weight` over its sum; 0 throughout where all of it is 0."""
    total = weight.sum()
    return weight / total.masked_fill(total == 0, 1)
