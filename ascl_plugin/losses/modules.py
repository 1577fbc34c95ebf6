"""The losses as modules, which hold the options and call the functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.losses.functional import asymmetry_loss
from ascl_plugin.losses.options import check_options
from ascl_plugin.losses.temperature import LearnedTemperature
from ascl_plugin.losses.triplet import triplet_loss


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
        values = {name: getattr(self, name) for name in self._options}
        return ", ".join(
            f"{name}={value!r}"
            for name, value in values.items()
            if not isinstance(value, nn.Module)
        )


class AsymmetryLoss(_BlockLoss):
    """Contrastive loss that learns what a caption may leave out and must not add.

    Each image competes for its text and each text for its image, as in InfoNCE. Generated
    negatives (a caption with noise in it: Asymmetry-I) join the texts' side, and a generated
    positive (two captions in one, or half of one: Asymmetry-II and -III) is a second right answer
    with a loss of its own.

    Args:
        temperature: divisor of the scores, above 0; .05 (COCO) and .01 (Flickr30K) in both papers.
            A number, or a tensor of one element; an `nn.Parameter` becomes one of this module.
        balance: weight of L_I against L_II&III, in [0, 1]; .5 in both papers.
        form: "nll" (-log of each ratio), "ratio" (minus the ratio, as printed), or "sigmoid"
            (each pair alone, as SigLIP).
        bias: added to the scores over the temperature in form "sigmoid"; as `temperature`.
        negative_mode: generated negatives compete for every image ("sum", the papers), only with
            the text they were made of ("own"), or in a term of their own ("pairwise").
        violations: "drop" or "keep" negatives that beat their pair. None: "keep" in mode
            "pairwise", else "drop".
        margin: what a negative should stay behind by, in units of the score, 0 or more.
        focal: exponent of the focal factor of mode "pairwise", 0 or more.
        negative_weight: weight of the generated negatives, 0 or more.
        reduction: "mean", "sum", "none" for the terms of each right pair, or "clip": the mean,
            with directions averaged, as in CLIP, where the papers add them.
        learn_temperature: True makes `temperature` the first value of a `LearnedTemperature`.
        min_temperature: lowest value of a learned temperature.

    Inputs:
        ==========================  ============  ================================================
        ``sim``                     (N, N)        S(I_i, T_j), pairs on the diagonal;
                                                  (I, T) with `targets`
        ``negative_sim``            (N, M)        S(I_i, T-_n), optional, any M >= 1; (I, M) with
                                                  `targets`; (T,), (T, M) or as `sim` in modes
                                                  "own" and "pairwise"
        ``positive_sim``            as `sim`      S(I_i, T+_j), optional
        ``positive_negative_sim``   as negatives  S(I_i, T~-_n), optional
        ``targets``                 (T,), (I, T)  each text's image, or what is right; optional
        ``ignore``                  (I, T)        True: neither right nor wrong; optional
        ``temperature``             scalar        in place of the module's; optional
        ==========================  ============  ================================================

        Equations, and what each form of `targets` and of the negatives means: `asymmetry_loss`.

    Raises:
        ValueError: an option outside its range; in a call, a shape that does not fit.

    Relations:
        With `sim` alone it is InfoNCE in both directions, their sum; with
        ``reduction="clip"`` it is the loss of CLIP and of open_clip. `TripletLoss` takes the same
        four blocks and is the papers' ablation. `contrast_loss` is mode "pairwise" on any scores.
        A temperature or bias that is learned belongs into the optimizer:
        ``[*model.parameters(), *loss.parameters()]``. The recipes train the model's weights alone
        and refuse a loss that has parameters.

    Examples:
        >>> import torch
        >>> from ascl_plugin import AsymmetryLoss
        >>> sim = torch.eye(4)  # cosines of 4 images and their 4 captions
        >>> noisy = torch.full((4, 4), 0.5)  # cosines with 4 captions that noise was added to
        >>> round(AsymmetryLoss(temperature=0.1)(sim, noisy).item(), 4)
        0.0269

        Several captions an image: texts 0 and 1 belong to image 0, text 2 to image 1.

        >>> sim = torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.2, 0.7]])
        >>> loss = AsymmetryLoss(temperature=0.1, negative_mode="pairwise", negative_weight=0.5)
        >>> negatives = torch.tensor([0.7, 0.6, 0.7])  # each text's image with its edited copy
        >>> targets = torch.tensor([0, 0, 1])
        >>> round(loss(sim, negatives, targets=targets).item(), 4)
        0.5709

    References:
        AsCL, equations 3-5; ACF-R+, equations 16-18.
    """

    _function = staticmethod(asymmetry_loss)
    _options = (
        "temperature", "balance", "form", "bias", "negative_mode", "violations", "margin", "focal",
        "negative_weight", "reduction",
    )  # fmt: skip

    def __init__(
        self,
        temperature: float | Tensor = 0.05,
        balance: float = 0.5,
        form: str = "nll",
        *,
        bias: float | Tensor = -10.0,
        negative_mode: str = "sum",
        violations: str | None = None,
        margin: float = 0.0,
        focal: float = 0.0,
        negative_weight: float = 1.0,
        reduction: str = "mean",
        learn_temperature: bool = False,
        min_temperature: float = 0.01,
    ) -> None:
        super().__init__()
        if violations is None:
            violations = "keep" if negative_mode == "pairwise" else "drop"
        check_options(
            temperature=temperature, balance=balance, form=form, bias=bias,
            negative_mode=negative_mode, violations=violations, margin=margin, focal=focal,
            negative_weight=negative_weight, reduction=reduction,
        )  # fmt: skip
        self.temperature: float | Tensor | LearnedTemperature = temperature
        if learn_temperature:
            if isinstance(temperature, Tensor):
                raise ValueError(
                    "learn_temperature=True needs a number to start from, got a tensor"
                )
            self.temperature = LearnedTemperature(temperature, min_temperature)
        self.balance = balance
        self.form = form
        self.bias = bias
        self.negative_mode = negative_mode
        self.violations = violations
        self.margin = margin
        self.focal = focal
        self.negative_weight = negative_weight
        self.reduction = reduction
        self._looked = False

    def forward(
        self,
        sim: Tensor,
        negative_sim: Tensor | None = None,
        positive_sim: Tensor | None = None,
        positive_negative_sim: Tensor | None = None,
        *,
        targets: Tensor | None = None,
        ignore: Tensor | None = None,
        temperature: float | Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the blocks; see the class for their shapes."""
        options = {name: getattr(self, name) for name in self._options}
        if temperature is not None:
            options["temperature"] = temperature
        elif isinstance(self.temperature, LearnedTemperature):
            options["temperature"] = self.temperature()
        else:
            self._look_at(sim)
        blocks = sim, negative_sim, positive_sim, positive_negative_sim
        return asymmetry_loss(*blocks, targets=targets, ignore=ignore, **options)

    def _look_at(self, sim: Tensor) -> None:
        """Warn, at the first call alone, of scores that seem to be scaled already."""
        known = isinstance(self.temperature, float) and self.temperature < 0.5
        if self._looked or not known or self.form == "sigmoid":
            return
        self._looked = True
        if not torch.compiler.is_compiling() and sim.numel():
            highest = sim.detach().abs().max().item()
            if highest > 5:
                warnings.warn(
                    f"scores reach {highest:.3g}, and the loss divides them by its temperature, "
                    f"{self.temperature}: it expects cosines. For logits that are scaled already "
                    "set temperature=1.0",
                    stacklevel=3,
                )

    if TYPE_CHECKING:
        __call__ = forward


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
