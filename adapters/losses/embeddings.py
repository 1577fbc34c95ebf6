"""The loss over embeddings of the pairs of all ranks, for trainers that bring embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ascl_plugin.asymmetry.embedding import STRENGTH, generate_negatives
from ascl_plugin.distributed import gather
from ascl_plugin.features import TextFeatures
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.shares import shares

#: Keys of a batch of `AsymmetryCollator` that no model takes.
BOOKKEEPING = (
    "row", "caption_index", "noise_seed", "positive_noise_seed", "image_of_text", "partner",
)  # fmt: skip
#: Prefixes of the texts in a batch of `AsymmetryCollator`.
PREFIXES = ("", "positive_", "negative_", "positive_negative_")
NOISES = ("gaussian", "dropout", "none")


def noisy(
    texts: Tensor, kind: str, strength: float | None = None, seeds: Tensor | None = None
) -> Tensor:
    """Return embeddings (T, D) with noise, unit length.

    Args:
        texts: unit vectors (T, D).
        kind: "gaussian" or "dropout" (of elements).
        strength: as in `generate_negatives`; None: its default.
        seeds: (T,) int64, each text's noise is a function of; None: all is drawn from torch's
            generator, on the device, which is faster.
    """
    if seeds is not None:
        words = generate_negatives(TextFeatures(texts[:, None]), seeds, kind, strength).words
        return normalize(words[:, 0], dim=1)
    strength = STRENGTH[kind] if strength is None else strength
    if kind == "gaussian":
        rms = texts.detach().square().mean(1, keepdim=True).sqrt()
        texts = texts + strength * rms * torch.randn_like(texts)
    else:
        texts = texts * (torch.rand_like(texts) >= strength)
    return normalize(texts, dim=1)


class EmbeddingLoss(nn.Module):
    """`AsymmetryLoss` over embeddings, gathered with gradients from all ranks, term by term.

    Every rank computes the loss of all pairs; gradients averaged over ranks, as DDP does, are
    those of one process with the whole batch.

    Args:
        loss: loss of the four score blocks. None: `AsymmetryLoss` with ``reduction="clip"``, which
            has the scale of the losses it replaces.
        noise: noise in a text's embedding where a text has no generated negative: "gaussian",
            "dropout" (of elements) or "none". In training mode only.
        strength: its strength, as in `generate_negatives`.
        gather: False: the pairs of this rank alone.

    Raises:
        ValueError: an unknown noise; a loss whose reduction gives no scalar.
    """

    def __init__(
        self,
        loss: nn.Module | None = None,
        noise: str = "none",
        strength: float | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        if noise not in NOISES:
            raise ValueError(f"noise must be one of {', '.join(NOISES)}, got {noise!r}")
        self.loss = AsymmetryLoss(reduction="clip") if loss is None else loss
        if getattr(self.loss, "reduction", "mean") == "none":
            raise ValueError("a trainer needs a scalar: reduction must not be 'none'")
        self.noise, self.strength, self.gather = noise, strength, gather

    def forward(
        self,
        images: Tensor,
        texts: Tensor,
        positives: Sequence[Tensor] = (),
        negatives: Sequence[Tensor] = (),
        positive_negatives: Sequence[Tensor] = (),
        *,
        image_of_text: Tensor | None = None,
        temperature: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms, whose sum is the loss: "asymmetry_loss" and, of T+, "positive_loss".

        Args:
            images: (N, D) of this rank; all embeddings are made unit length.
            texts: (T, D), T = N without `image_of_text`.
            positives: generated positives, each (T, D); the mean of their losses counts.
            negatives: of the texts, each (T, D).
            positive_negatives: of the positives, each (T, D).
            image_of_text: (T,), row of each text's image among `images`.
            temperature: in place of the loss's own.
        """
        options: dict[str, Tensor] = {} if temperature is None else {"temperature": temperature}
        if image_of_text is not None:
            first = shares("own", len(images), images.device).own.start if self.gather else 0
            options["targets"] = self._all(image_of_text + first)
        images = self._all(normalize(images, dim=1))

        def half(right: Tensor, wrong: Sequence[Tensor]) -> Tensor:
            right = normalize(right, dim=1)
            if not wrong and self.noise != "none" and self.training:
                wrong = [noisy(right, self.noise, self.strength)]
            wrong = [self._all(normalize(negative, dim=1)) for negative in wrong]
            block = self._block(images, wrong, options.get("targets")) if wrong else None
            return self.loss(images @ self._all(right).T, block, **options)

        captions = half(texts, negatives)
        if not positives:
            return {"asymmetry_loss": captions}
        generated = torch.stack([half(p, positive_negatives) for p in positives]).mean()
        balance: Any = self.loss.balance
        return {"asymmetry_loss": balance * captions, "positive_loss": (1 - balance) * generated}

    if TYPE_CHECKING:
        __call__ = forward

    def of_batch(
        self,
        images: Tensor,
        texts: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        temperature: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the terms of a batch of `AsymmetryCollator`.

        Args:
            images: (N, D).
            texts: embeddings (T, D) of each of `PREFIXES` that the batch has.
            batch: of the collator. Where it has seeds of noise in place of negatives, noise of the
                kind `noise` (gaussian, if that is "none") is put into the embeddings.
            temperature: as in a call.
        """
        found = dict(texts)
        for prefix in PREFIXES[:2]:
            if f"{prefix}noise_seed" in batch and prefix in found:
                kind = "gaussian" if self.noise == "none" else self.noise
                seeds, whole = batch[f"{prefix}noise_seed"], normalize(found[prefix], dim=1)
                found[f"{prefix}negative_"] = noisy(whole, kind, self.strength, seeds)
        generated = [[found[prefix]] if prefix in found else [] for prefix in PREFIXES[1:]]
        owner = batch.get("image_of_text")
        return self(images, found[""], *generated, image_of_text=owner, temperature=temperature)

    def _all(self, local: Tensor) -> Tensor:
        return gather(local) if self.gather else local

    def _block(self, images: Tensor, negatives: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Return scores of negatives: all images with all, or each text's image with its own."""
        if getattr(self.loss, "negative_mode", "sum") == "sum":
            return images @ torch.cat(list(negatives)).T
        own = images if targets is None else images[targets]
        return torch.stack([(own * negative).sum(1) for negative in negatives], 1)


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the loss of its terms: their sum, a scalar."""
    return torch.stack(list(terms.values())).sum()


def text_blocks(batch: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return a batch of `AsymmetryCollator` by prefix, without its bookkeeping.

    Under "" is everything that has no prefix, images included; under each other of `PREFIXES` that
    the batch has, the tokens of those texts by their names without the prefix.
    """
    blocks: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in PREFIXES}
    for key, value in batch.items():
        if key not in BOOKKEEPING:
            prefix = max(filter(key.startswith, PREFIXES), key=len)
            blocks[prefix][key.removeprefix(prefix)] = value
    return {prefix: block for prefix, block in blocks.items() if block}
