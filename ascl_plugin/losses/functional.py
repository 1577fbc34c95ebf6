"""The losses as functions of score matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ascl_plugin.features import wide

Blocks = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
TIE = 1e-5  # share of a score by which another must be higher to count as higher


def asymmetry_loss(
    sim: Tensor,
    negative_sim: Tensor | None = None,
    positive_sim: Tensor | None = None,
    positive_negative_sim: Tensor | None = None,
    *,
    temperature: float = 0.05,
    balance: float = 0.5,
    form: str = "nll",
) -> Tensor:
    """Return the asymmetry-sensitive contrastive loss (AsCL eqs. 3-5; ACF-R+ eqs. 16-18).

    For pair i, with S = `sim`, S- = `negative_sim` and temperature t::

        image side  e^(S_ii/t) / sum_n e^(S_ni/t)
        text side   e^(S_ii/t) / (sum_n e^(S_in/t) + sum_n a_in e^(S-_in/t))

    where a_in = 0 if S-_in > S_ii, else 1: a generated negative that beats the positive, by more
    than rounding, leaves the sum. L_I is the mean over pairs of the sum of both terms; L_II&III is
    the same of `positive_sim`, `positive_negative_sim`.

    Args:
        sim: (N, N), row i, column j = S(I_i, T_j); pairs on the diagonal.
        negative_sim: (N, M), scores of the images with M generated negatives of the texts.
        positive_sim: (N, N), scores with the generated positives T+; pairs on the diagonal.
        positive_negative_sim: (N, M), scores with generated negatives of the T+.
        temperature: t, in (0, inf).
        balance: weight of L_I, the rest goes to L_II&III; without positives the loss is L_I alone.
        form: "nll" takes -log of each ratio; "ratio" minus the ratio, as both papers print it.

    Returns:
        A scalar, computed in fp32 or wider.

    Raises:
        ValueError: a shape that does not fit, or an option out of range.
    """
    check_options(temperature=temperature, balance=balance, form=form)

    def half(s: Tensor, negatives: Tensor | None) -> Tensor:
        own = torch.arange(len(s), device=s.device)
        return pair_terms(s, s.T, own, negatives, temperature, form).mean()

    return _balanced(half, balance, (sim, negative_sim, positive_sim, positive_negative_sim))


def pair_terms(
    by_text: Tensor,
    by_image: Tensor,
    own: Tensor,
    negatives: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    form: str = "nll",
) -> Tensor:
    """Return the loss of each of n pairs among N images and N texts: both terms, added.

    Args:
        by_text: (n, N), row i: S(I_i, T_j), pair i's image with every text.
        by_image: (n, N), row i: S(I_j, T_i), pair i's text with every image.
        own: (n,), the column of each pair's own text and image.
        negatives: (n, M), scores of the n images with M generated negatives.
        temperature: divides the scores; may be learned.
        form: "nll" or "ratio".

    Returns:
        (n,), fp32 or wider. `asymmetry_loss` is its mean for n = N.
    """
    # no autocast: log_softmax would be widened anyway, the divisions before it would not
    with torch.autocast(by_text.device.type, enabled=False):
        rows = competitors(by_text, own, negatives, temperature), wide(by_image) / temperature
        of_text, of_image = (
            torch.log_softmax(x, dim=1).gather(1, own[:, None])[:, 0] for x in rows
        )
        return -(of_image + of_text) if form == "nll" else -(of_image.exp() + of_text.exp())


def triplet_loss(
    sim: Tensor,
    negative_sim: Tensor | None = None,
    positive_sim: Tensor | None = None,
    positive_negative_sim: Tensor | None = None,
    *,
    margin: float = 0.2,
    balance: float = 0.5,
) -> Tensor:
    """Return the hinge loss with the hardest negatives of a batch (VSE++), over the same blocks.

    Per pair: [m + max_n S_ni - S_ii]+ + [m + max(S_in, S-_in) - S_ii]+, the maxima over wrong
    images, wrong texts, and generated negatives under the alpha rule of `asymmetry_loss`.

    Args:
        sim, negative_sim, positive_sim, positive_negative_sim, balance: as `asymmetry_loss`.
        margin: m, in units of the score, in [0, inf).

    Returns:
        A scalar: the mean over pairs of the sum of both hinges.

    Raises:
        ValueError: a shape that does not fit, or an option out of range.
    """
    check_options(margin=margin, balance=balance)

    def half(s: Tensor, negatives: Tensor | None) -> Tensor:
        s, own = wide(s), torch.eye(len(s), dtype=torch.bool, device=s.device)
        texts = competitors(s, torch.arange(len(s), device=s.device), negatives)
        hardest_image = s.masked_fill(own, -torch.inf).amax(0)
        own = pad(own, (0, texts.shape[1] - len(s)))
        hardest_text = texts.masked_fill(own, -torch.inf).amax(1)
        # a batch of one pair has no wrong image: its hinge is 0, not infinity
        hinges = (margin + x - s.diagonal() for x in (hardest_image, hardest_text))
        return sum((x.relu() for x in hinges), start=s.new_zeros(())).mean()

    return _balanced(half, balance, (sim, negative_sim, positive_sim, positive_negative_sim))


def competitors(
    by_text: Tensor, own: Tensor, negatives: Tensor | None, temperature: float | Tensor = 1.0
) -> Tensor:
    """Return (n, N) or (n, N + M): scores of texts and of negatives, over the temperature.

    A negative that beats the positive becomes -inf. A tie is no defeat: a shuffled caption often
    scores exactly as the caption does, and rounding must not decide if it counts.
    """
    by_text = wide(by_text)
    if negatives is None:
        return by_text / temperature
    negatives = wide(negatives)
    positive = by_text.detach().gather(1, own[:, None])
    beaten = negatives.detach() > positive + TIE * positive.abs().clamp(min=1)
    # masked last: -inf over a learned temperature would give that a gradient of nan
    negatives = (negatives / temperature).masked_fill(beaten, -torch.inf)
    return torch.cat([by_text / temperature, negatives], dim=1)


def check_options(
    *, temperature: float = 1.0, balance: float = 0.5, form: str = "nll", margin: float = 0.0
) -> None:
    """Raise ValueError if an option is outside its range."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be in (0, inf), got {temperature}")
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be in [0, 1], got {balance}")
    if form not in ("nll", "ratio"):
        raise ValueError(f"form must be 'nll' or 'ratio', got {form!r}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be in [0, inf), got {margin}")


def _balanced(
    half: Callable[[Tensor, Tensor | None], Tensor], balance: float, blocks: Blocks
) -> Tensor:
    """Return balance * half of the captions + (1 - balance) * half of the generated positives."""
    sim, negative, positive, positive_negative = blocks
    if sim.ndim != 2 or sim.shape[0] != sim.shape[1] or not len(sim):
        raise ValueError(
            f"sim must be (N, N) with the pairs on its diagonal, got {tuple(sim.shape)}"
        )
    if positive is not None and positive.shape != sim.shape:
        raise ValueError(
            f"positive_sim must have sim's shape {tuple(sim.shape)}, got {tuple(positive.shape)}"
        )
    for name, block in (("negative_sim", negative), ("positive_negative_sim", positive_negative)):
        if block is not None and (block.ndim != 2 or len(block) != len(sim) or not block.shape[1]):
            raise ValueError(
                f"{name} must be ({len(sim)}, M) with M >= 1, got {tuple(block.shape)}"
            )
    if positive is None and positive_negative is not None:
        raise ValueError("positive_negative_sim was given without positive_sim")
    with torch.autocast(sim.device.type, enabled=False):
        loss = half(sim, negative)
        if positive is None:
            return loss
        return balance * loss + (1 - balance) * half(positive, positive_negative)
