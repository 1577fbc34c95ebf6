"""The asymmetry loss in place of open_clip's `ClipLoss`, in its own training."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ascl_plugin.adapters.losses.embeddings import NOISES, noisy
from ascl_plugin.distributed import gather
from ascl_plugin.features import wide
from ascl_plugin.losses.functional import pair_terms
from ascl_plugin.losses.options import check_options

#: Functions of open_clip's trainers that make the loss, or the task around it.
BUILDERS = ("create_task", "create_loss", "create_loss_from_args")


class OpenClipAsymmetryLoss(nn.Module):
    """`AsymmetryLoss` (form "nll") that open_clip's trainer calls as it calls `ClipLoss`.

    Each caption embedding gets a generated negative: itself with noise. The papers put noise into
    the words of a caption (Asymmetry-I); a trainer that passes one embedding a text leaves only
    that, which is less. ``negative_text_features`` in the model's output, made of noisy words, are
    used instead. ``positive_text_features``, embeddings of richer or shorter captions
    (Asymmetry-II and -III), add the second half of the loss.

    Args:
        temperature: divisor of the cosines; None: the learned `logit_scale`. With a number,
            `logit_scale` stays as it is. `logit_bias` cancels in a softmax and has no effect.
        negatives: noise in the text embedding: "gaussian", "dropout" (of elements), or "none".
        strength: strength of the noise, as in `generate_negatives`.
        balance: weight of L_I against L_II&III, where there are positives.
        rank, world_size, local_loss, gather_with_grad: as in `ClipLoss`, and with its gradients:
            `gather_with_grad` makes them those of one rank with the global batch; `local_loss`
            compares a rank's own pairs with all, in world_size times less memory.
        reduction: "clip" averages the two directions, as `ClipLoss` does; "mean" adds them, as the
            papers do.

    Inputs:
        The keys of open_clip's model output: ``image_features``, ``text_features`` (N, D), unit
        length, ``logit_scale``, and, where a model has them, ``logit_bias`` and the two named
        above. ``output_dict=True`` gives ``{"asymmetry_loss": scalar}`` and, with positives,
        ``"positive_loss"``, whose sum the trainer takes; else the scalar.

    Relations:
        Without negatives and positives it is `ClipLoss`.

    Examples:
        >>> import torch
        >>> from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
        >>> loss = OpenClipAsymmetryLoss(negatives="none")
        >>> out = {"image_features": torch.eye(4), "text_features": torch.eye(4)}
        >>> round(loss(**out, logit_scale=torch.tensor(10.0)).item(), 5)
        0.00014

    References:
        AsCL, equations 3-5; ACF-R+, equations 16-18.
    """

    def __init__(
        self,
        temperature: float | None = None,
        negatives: str = "gaussian",
        strength: float | None = None,
        balance: float = 0.5,
        rank: int = 0,
        world_size: int = 1,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        reduction: str = "clip",
    ) -> None:
        super().__init__()
        if negatives not in NOISES:
            raise ValueError(f"negatives must be one of {', '.join(NOISES)}, got {negatives!r}")
        if reduction not in ("mean", "clip"):
            raise ValueError(f"reduction must be 'mean' or 'clip', got {reduction!r}")
        check_options(temperature=1.0 if temperature is None else temperature, balance=balance)
        self.temperature, self.negatives, self.balance = temperature, negatives, balance
        self.strength, self.reduction = strength, reduction
        self.rank, self.world_size = rank, world_size
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        negative_text_features: Tensor | None = None,
        positive_text_features: Tensor | None = None,
        output_dict: bool = False,
    ) -> Any:
        """Return the loss; noise is drawn in training mode only."""
        temperature = 1 / wide(logit_scale) if self.temperature is None else self.temperature
        images = self._gather(image_features)
        half = self._half(images, text_features, negative_text_features, temperature)
        # a parameter without gradient stops distributed training
        for unused in (None if self.temperature is None else logit_scale, logit_bias):
            if unused is not None:
                half = half + 0 * unused.sum()
        terms = {"asymmetry_loss": half}
        if positive_text_features is not None:
            positive = self._half(images, positive_text_features, None, temperature)
            terms = {
                "asymmetry_loss": self.balance * half,
                "positive_loss": (1 - self.balance) * positive,
            }
        return terms if output_dict else sum(terms.values())

    def _half(
        self, images: Tensor, texts: Tensor, negatives: Tensor | None, temperature: Tensor | float
    ) -> Tensor:
        """Return the mean of `pair_terms` over the pairs of this rank or of all."""
        if negatives is None and self.negatives != "none" and self.training:
            negatives = noisy(texts, self.negatives, self.strength)
        all_texts = self._gather(texts)
        own = torch.arange(len(all_texts), device=texts.device)
        if self.local_loss:
            own = own[self.rank * len(texts) : (self.rank + 1) * len(texts)]
        by_text, by_image = images[own] @ all_texts.T, all_texts[own] @ images.T
        extra = None if negatives is None else images[own] @ self._gather(negatives).T
        terms = pair_terms(by_text, by_image, own, extra, temperature)
        return terms.mean() if self.reduction == "mean" else terms.mean() / 2

    def _gather(self, local: Tensor) -> Tensor:
        """Return (N, D), the (n, D) of all ranks in their order."""
        if self.world_size == 1:
            return local
        if self.gather_with_grad:
            gathered = gather(local)
            if len(gathered) != self.world_size * len(local):
                raise ValueError(
                    f"all ranks must pass equal numbers of pairs, got {len(local)} here"
                )
            parts = list(gathered.chunk(self.world_size))
        else:
            parts = [torch.empty_like(local) for _ in range(self.world_size)]
            dist.all_gather(parts, local.detach().contiguous())
        if self.local_loss or not self.gather_with_grad:
            parts[self.rank] = local
        return torch.cat(parts)

    def extra_repr(self) -> str:
        """Return the options, for `print(loss)`."""
        return (
            f"temperature={self.temperature}, negatives={self.negatives!r}, "
            f"strength={self.strength}, balance={self.balance}, local_loss={self.local_loss}, "
            f"gather_with_grad={self.gather_with_grad}, reduction={self.reduction!r}"
        )


def install(trainer: ModuleType, **options: Any) -> None:
    """Make a trainer of open_clip, 3 or 4, train with `OpenClipAsymmetryLoss` for `ClipLoss`.

    The functions that make the loss (`create_loss`) or the task that owns it (`create_task`) are
    replaced in the module. The rank and the choices of `--local-loss` and `--gather-with-grad` are
    those that the trainer made for its own loss. If an optimizer is about to step and the loss was
    never called, the trainer builds its loss elsewhere: training stops with an error.

    Args:
        trainer: module with the trainer's `main`: `open_clip_train.main`.
        **options: options of `OpenClipAsymmetryLoss`.

    Raises:
        ValueError: a module without such a function. In training, a trainer whose own loss is not
            `ClipLoss`, as with `--siglip`, a CoCa or distillation.
        RuntimeError: in training, an optimizer step without the loss.

    Examples:
        >>> from open_clip_train import main as trainer  # doctest: +SKIP
        >>> install(trainer)  # doctest: +SKIP
        >>> trainer.main(["--model", "ViT-B-32", "--train-data", "pairs.csv"])  # doctest: +SKIP
    """
    OpenClipAsymmetryLoss(**options)  # errors of options now
    found = [name for name in BUILDERS if hasattr(trainer, name)]
    if not found:
        raise ValueError(
            f"{trainer.__name__} has none of {', '.join(BUILDERS)}: pass the module with the "
            "trainer's main, open_clip_train.main"
        )
    called: set[bool] = set()

    def replaced(build: Callable[..., Any]) -> Callable[..., Any]:
        def built(*args: Any, **kwargs: Any) -> Any:
            made = build(*args, **kwargs)
            task = hasattr(made, "trainable_module")
            theirs = getattr(made, "loss", None) if task else made
            if theirs is None:  # a task that evaluates alone
                return made
            try:
                loss = _in_place_of(theirs, options)
            except ValueError:
                guard.remove()  # nothing will be trained
                raise
            loss.register_forward_pre_hook(lambda *_: called.add(True))
            if not task:
                return loss
            made.loss = loss
            return made

        return built

    for name in found:
        setattr(trainer, name, replaced(getattr(trainer, name)))

    def check(*_: object) -> None:
        guard.remove()
        if not called:
            raise RuntimeError(
                f"an optimizer steps, and OpenClipAsymmetryLoss was never called: "
                f"{trainer.__name__} does not make its loss by {' or '.join(found)}, so another "
                "loss would have been trained"
            )

    guard = register_optimizer_step_pre_hook(check)


def _in_place_of(theirs: nn.Module, options: dict[str, Any]) -> OpenClipAsymmetryLoss:
    """Return the loss with the rank and the distributed choices of a `ClipLoss`."""
    if type(theirs).__name__ != "ClipLoss":
        raise ValueError(
            f"the trainer made a {type(theirs).__name__}: OpenClipAsymmetryLoss takes the place of "
            "ClipLoss alone, without --siglip, CoCa or distillation"
        )
    shared = ("rank", "world_size", "local_loss", "gather_with_grad")
    return OpenClipAsymmetryLoss(**{name: getattr(theirs, name) for name in shared}, **options)
