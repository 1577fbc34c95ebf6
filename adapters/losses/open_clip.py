"""The asymmetry loss in place of open_clip's `ClipLoss`, in its own training."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.asymmetry.embedding import STRENGTH
from ascl_plugin.distributed import gather
from ascl_plugin.features import wide
from ascl_plugin.losses.functional import pair_terms
from ascl_plugin.losses.options import check_options

EMBEDDING_NOISES = ("gaussian", "dropout", "none")


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

    Inputs:
        The keys of open_clip's model output: ``image_features``, ``text_features`` (N, D), unit
        length, ``logit_scale``, and, where a model has them, ``logit_bias`` and the two named
        above. ``output_dict=True`` gives ``{"asymmetry_loss": scalar}``, else the scalar.

    Relations:
        Without negatives and positives it is twice `ClipLoss`, which averages the two directions
        where the papers add them.

    Example:
        >>> import torch
        >>> from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
        >>> loss = OpenClipAsymmetryLoss(negatives="none")
        >>> out = {"image_features": torch.eye(4), "text_features": torch.eye(4)}
        >>> round(loss(**out, logit_scale=torch.tensor(10.0)).item(), 5)
        0.00027

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
    ) -> None:
        super().__init__()
        if negatives not in EMBEDDING_NOISES:
            raise ValueError(
                f"negatives must be one of {', '.join(EMBEDDING_NOISES)}, got {negatives!r}"
            )
        check_options(temperature=1.0 if temperature is None else temperature, balance=balance)
        self.temperature, self.negatives, self.balance = temperature, negatives, balance
        self.strength = STRENGTH.get(negatives, 0.0) if strength is None else strength
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
        if positive_text_features is not None:
            positive = self._half(images, positive_text_features, None, temperature)
            half = self.balance * half + (1 - self.balance) * positive
        # a parameter without gradient stops distributed training
        for unused in (None if self.temperature is None else logit_scale, logit_bias):
            if unused is not None:
                half = half + 0 * unused.sum()
        return {"asymmetry_loss": half} if output_dict else half

    def _half(
        self, images: Tensor, texts: Tensor, negatives: Tensor | None, temperature: Tensor | float
    ) -> Tensor:
        """Return the mean of `pair_terms` over the pairs of this rank or of all."""
        if negatives is None and self.negatives != "none" and self.training:
            negatives = self._noisy(texts)
        all_texts = self._gather(texts)
        own = torch.arange(len(all_texts), device=texts.device)
        if self.local_loss:
            own = own[self.rank * len(texts) : (self.rank + 1) * len(texts)]
        by_text, by_image = images[own] @ all_texts.T, all_texts[own] @ images.T
        extra = None if negatives is None else images[own] @ self._gather(negatives).T
        return pair_terms(by_text, by_image, own, extra, temperature).mean()

    def _noisy(self, texts: Tensor) -> Tensor:
        if self.negatives == "gaussian":
            rms = texts.detach().square().mean(1, keepdim=True).sqrt()
            noisy = texts + self.strength * rms * torch.randn_like(texts)
        else:
            noisy = texts * (torch.rand_like(texts) >= self.strength)
        return functional.normalize(noisy, dim=1)

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
            f"gather_with_grad={self.gather_with_grad}"
        )
