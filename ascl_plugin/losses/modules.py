"""The losses as modules, which hold the options and call the functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ascl_plugin.losses.functional import asymmetry_loss, check_options, triplet_loss


class _BlockLoss(nn.Module):
    """A loss over the four score blocks; its options are attributes of their names."""

    _function: Callable[..., Tensor]
    _options: tuple[str, ...]

    def forward(
        self,
        sim: Tensor,
        negative_sim: Tensor | None = None,
        positive_sim: Tensor | None = None,
        positive_negative_sim: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of the blocks; see the class for their shapes."""
        options = {name: getattr(self, name) for name in self._options}
        blocks = sim, negative_sim, positive_sim, positive_negative_sim
        return type(self)._function(*blocks, **options)

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    def extra_repr(self) -> str:
        """Return the options, for `print(loss)`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)


class AsymmetryLoss(_BlockLoss):
    """Contrastive loss that learns what a caption may leave out and must not add.

    Each image competes for its text and each text for its image, as in InfoNCE. Generated
    negatives (a caption with noise in it: Asymmetry-I) join the texts' side, and a generated
    positive (two captions in one, or half of one: Asymmetry-II and -III) is a second right answer
    with a loss of its own.

    Args:
        temperature: divisor of the scores, above 0; .05 (COCO) and .01 (Flickr30K) in both papers.
        balance: weight of L_I against L_II&III, in [0, 1]; .5 in both papers.
        form: "nll" (-log of each ratio) or "ratio" (minus the ratio, as printed).

    Inputs:
        ============================  ========  =========================================
        ``sim``                       (N, N)    S(I_i, T_j), pairs on the diagonal
        ``negative_sim``              (N, M)    S(I_i, T-_n), optional, any M >= 1
        ``positive_sim``              (N, N)    S(I_i, T+_j), optional
        ``positive_negative_sim``     (N, M)    S(I_i, T~-_n), optional
        ============================  ========  =========================================

    Raises:
        ValueError: an option outside its range; in a call, a shape that does not fit.

    Relations:
        With `sim` alone it is InfoNCE in both directions, their sum. `TripletLoss` takes the same
        inputs and is the papers' ablation.

    Example:
        >>> import torch
        >>> from ascl_plugin import AsymmetryLoss
        >>> sim = torch.eye(4)  # cosines of 4 images and their 4 captions
        >>> noisy = torch.full((4, 4), 0.5)  # cosines with 4 captions that noise was added to
        >>> round(AsymmetryLoss(temperature=0.1)(sim, noisy).item(), 4)
        0.0269

    References:
        AsCL, equations 3-5; ACF-R+, equations 16-18.
    """

    _function = staticmethod(asymmetry_loss)
    _options = ("temperature", "balance", "form")

    def __init__(self, temperature: float = 0.05, balance: float = 0.5, form: str = "nll") -> None:
        super().__init__()
        check_options(temperature=temperature, balance=balance, form=form)
        self.temperature = temperature
        self.balance = balance
        self.form = form


class TripletLoss(_BlockLoss):
    """Hinge loss with the hardest negatives of a batch: the papers' ablation of the objective.

    Args:
        margin: in units of the score, 0 or more.
        balance: weight of the captions against the generated positives, in [0, 1].

    Inputs, errors: as `AsymmetryLoss`. See `triplet_loss`.
    """

    _function = staticmethod(triplet_loss)
    _options = ("margin", "balance")

    def __init__(self, margin: float = 0.2, balance: float = 0.5) -> None:
        super().__init__()
        check_options(margin=margin, balance=balance)
        self.margin = margin
        self.balance = balance
