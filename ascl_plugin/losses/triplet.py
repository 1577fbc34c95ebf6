"""The hinge loss as a function of score matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ascl_plugin.features import wide
from ascl_plugin.losses.blocks import balanced, check_blocks
from ascl_plugin.losses.negatives import beaten
from ascl_plugin.losses.options import check_options


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
    blocks = (sim, negative_sim, positive_sim, positive_negative_sim)
    check_blocks(blocks)

    def half(s: Tensor, negatives: Tensor | None) -> Tensor:
        s, own = wide(s), torch.eye(len(s), dtype=torch.bool, device=s.device)
        hardest_image = s.masked_fill(own, -torch.inf).amax(0)
        texts = s
        if negatives is not None:
            negatives = wide(negatives)
            lost = beaten(s.diagonal(), negatives)
            texts = torch.cat([s, negatives.masked_fill(lost, -torch.inf)], dim=1)
        own = pad(own, (0, texts.shape[1] - len(s)))
        hardest_text = texts.masked_fill(own, -torch.inf).amax(1)
        # a batch of one pair has no wrong image: its hinge is 0, not infinity
        hinges = (margin + x - s.diagonal() for x in (hardest_image, hardest_text))
        return sum((x.relu() for x in hinges), start=s.new_zeros(())).mean()

    return balanced(half, balance, blocks)
