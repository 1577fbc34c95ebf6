"""The losses as modules: they keep hyper-parameters and call the functions."""

from __future__ import annotations

from torch import Tensor, nn

from ascl_plugin.losses.functional import asymmetry_loss, triplet_loss


class AsymmetryLoss(nn.Module):
    """Contrastive loss that is taught what a caption may leave out and must not add.

    Each image competes for its text and each text for its image, as in InfoNCE. Generated
    negatives (a caption with noise in it: Asymmetry-I) join the texts' side, and a generated
    positive (two captions in one, or half of one: Asymmetry-II and -III) is a second right answer
    with a loss of its own.

    Args:
        temperature: divides the scores; .05 (COCO) and .01 (Flickr30K) in both papers.
        balance: weight of L_I against L_II&III; .5 in both papers.
        form: "nll" (-log of each ratio) or "ratio" (minus the ratio, as printed).

    Inputs:
        ============================  ========  =========================================
        ``sim``                       (N, N)    S(I_i, T_j), pairs on the diagonal
        ``negative_sim``              (N, M)    S(I_i, T-_n), optional, any M >= 1
        ``positive_sim``              (N, N)    S(I_i, T+_j), optional
        ``positive_negative_sim``     (N, M)    S(I_i, T~-_n), optional
        ============================  ========  =========================================

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

    def __init__(self, temperature: float = 0.05, balance: float = 0.5, form: str = "nll") -> None:
        super().__init__()
        self.temperature = temperature
        self.balance = balance
        self.form = form

    def forward(
        self,
        sim: Tensor,
        negative_sim: Tensor | None = None,
        positive_sim: Tensor | None = None,
        positive_negative_sim: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss; see `asymmetry_loss`."""
        return asymmetry_loss(
            sim,
            negative_sim,
            positive_sim,
            positive_negative_sim,
            temperature=self.temperature,
            balance=self.balance,
            form=self.form,
        )

    def extra_repr(self) -> str:
        """What `print(loss)` tells of the options."""
        return f"temperature={self.temperature}, balance={self.balance}, form={self.form!r}"


class TripletLoss(nn.Module):
    """Hinge loss with the hardest negatives of a batch: the papers' ablation of the objective.

    Args:
        margin: in units of the score.
        balance: weight of the captions' part against the generated positives' part.

    Inputs: as `AsymmetryLoss`. See `triplet_loss`.
    """

    def __init__(self, margin: float = 0.2, balance: float = 0.5) -> None:
        super().__init__()
        self.margin = margin
        self.balance = balance

    def forward(
        self,
        sim: Tensor,
        negative_sim: Tensor | None = None,
        positive_sim: Tensor | None = None,
        positive_negative_sim: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss; see `triplet_loss`."""
        return triplet_loss(
            sim,
            negative_sim,
            positive_sim,
            positive_negative_sim,
            margin=self.margin,
            balance=self.balance,
        )

    def extra_repr(self) -> str:
        """What `print(loss)` tells of the options."""
        return f"margin={self.margin}, balance={self.balance}"
