"""The losses as functions of score matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ascl_plugin.features import wide

TIE = 1e-5  # share of a score by which another must be higher


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
    """The asymmetry-sensitive contrastive loss (AsCL eqs. 3-5; ACF-R+ eqs. 16-18).

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
        temperature: t, above 0.
        balance: weight of L_I, the rest goes to L_II&III; without positives the loss is L_I alone.
        form: "nll" takes -log of each ratio; "ratio" minus the ratio, as both papers print it.

    Returns:
        A scalar, computed in fp32 or wider.

    Raises:
        ValueError: a shape that does not fit, or an option out of range.
    """
    if form not in ("nll", "ratio"):
        raise ValueError(f"form must be 'nll' or 'ratio', got {form!r}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be in [0, 1], got {balance}")
    _check_blocks(sim, negative_sim, positive_sim, positive_negative_sim)

    def half(s: Tensor, negatives: Tensor | None) -> Tensor:
        s, negatives = wide(s), None if negatives is None else wide(negatives)
        kept = _competitors(s, negatives)
        by_image = torch.log_softmax(s / temperature, dim=0).diagonal()
        by_text = torch.log_softmax(kept / temperature, dim=1).diagonal()
        terms = by_image + by_text if form == "nll" else by_image.exp() + by_text.exp()
        return -terms.mean()

    # no autocast: log_softmax would be widened anyway, the divisions before it would not
    with torch.autocast(sim.device.type, enabled=False):
        loss = half(sim, negative_sim)
        if positive_sim is None:
            return loss
        return balance * loss + (1 - balance) * half(positive_sim, positive_negative_sim)


def triplet_loss(
    sim: Tensor,
    negative_sim: Tensor | None = None,
    positive_sim: Tensor | None = None,
    positive_negative_sim: Tensor | None = None,
    *,
    margin: float = 0.2,
    balance: float = 0.5,
) -> Tensor:
    """Hinge loss with the hardest negatives of a batch (VSE++), over the same score blocks.

    Per pair: [m + max_n S_ni - S_ii]+ + [m + max(S_in, S-_in) - S_ii]+, the maxima over wrong
    images, wrong texts, and generated negatives under the alpha rule of `asymmetry_loss`.

    Args:
        sim, negative_sim, positive_sim, positive_negative_sim, balance: as `asymmetry_loss`.
        margin: m, in units of the score.

    Returns:
        A scalar: the mean over pairs of the sum of both hinges.

    Raises:
        ValueError: a shape that does not fit, or an option out of range.
    """
    if not math.isfinite(margin):
        raise ValueError(f"margin must be a number, got {margin}")
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be in [0, 1], got {balance}")
    _check_blocks(sim, negative_sim, positive_sim, positive_negative_sim)

    def half(s: Tensor, negatives: Tensor | None) -> Tensor:
        s, negatives = wide(s), None if negatives is None else wide(negatives)
        own = torch.eye(len(s), dtype=torch.bool, device=s.device)
        pair = s.diagonal()
        images = s.masked_fill(own, -torch.inf).amax(0)
        kept = _competitors(s, negatives)
        texts = kept.masked_fill(
            torch.nn.functional.pad(own, (0, kept.shape[1] - len(s))), -torch.inf
        ).amax(1)
        # a batch of one pair has no wrong image: its hinge is 0, not infinity
        return ((margin + images - pair).relu() + (margin + texts - pair).relu()).mean()

    with torch.autocast(sim.device.type, enabled=False):
        loss = half(sim, negative_sim)
        if positive_sim is None:
            return loss
        return balance * loss + (1 - balance) * half(positive_sim, positive_negative_sim)


def _competitors(s: Tensor, negatives: Tensor | None) -> Tensor:
    """(N, N) or (N, N + M): texts, then the generated negatives that do not beat the positive.

    A tie is no defeat: a shuffled caption often scores just what the caption does, and rounding
    must not decide whether it counts.
    """
    if negatives is None:
        return s
    positive = s.detach().diagonal()[:, None]
    beaten = negatives.detach() > positive + TIE * positive.abs().clamp(min=1)
    return torch.cat([s, negatives.masked_fill(beaten, -torch.inf)], dim=1)


def _check_blocks(
    sim: Tensor, negative: Tensor | None, positive: Tensor | None, positive_negative: Tensor | None
) -> None:
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
