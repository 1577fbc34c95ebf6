"""Asymmetry-I negatives: noise in the word embeddings of a caption, never in its padding.

The noise acts after the encoder, on the words a scorer sees. A scorer to which a text is a set of
words, such as `CrossModalFusion`, cannot tell a shuffled caption from the caption: there "shuffle"
adds a competitor with exactly the score of the positive. It exists because the papers use it, and
for scorers that read the order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.text_edits import NEGATIVE_EDITS
from ascl_plugin.features import TextFeatures, mean_of_places, whole_texts, wide

# A noise takes real words (L, D), a strength and a generator, and returns new words (L, D).
Noise = Callable[[Tensor, float, torch.Generator], Tensor]


def gaussian(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Add h ~ N(0, sigma^2) to every element; sigma = strength times the RMS of the words.

    The papers give no sigma; relative to the words it means the same at any scale of embedding.
    """
    noise = torch.randn(words.shape, generator=generator).to(words)
    return words + strength * wide(words.detach()).square().mean().sqrt() * noise


def shuffle(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Put the words in another order, uniform over orders; `strength` has no meaning here."""
    return words[torch.randperm(len(words), generator=generator).to(words.device)]


def token_cutoff(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Set whole words (rows) to zero: a share `strength` of them, at least one."""
    return _cutoff(words, 0, strength, generator)


def feature_cutoff(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Set whole features (columns) to zero: a share `strength` of them, at least one."""
    return _cutoff(words, 1, strength, generator)


def _cutoff(words: Tensor, axis: int, strength: float, generator: torch.Generator) -> Tensor:
    size = words.shape[axis]
    count = max(1, round(strength * size))
    chosen = torch.randperm(size, generator=generator)[:count].to(words.device)
    return words.index_fill(axis, chosen, 0.0)


def dropout(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Set elements to zero with probability `strength`; the rest stays (no rescaling)."""
    return words * (torch.rand(words.shape, generator=generator) >= strength).to(words)


# name -> the noise, its default strength
_NOISES: dict[str, tuple[Noise, float]] = {
    "gaussian": (gaussian, 0.5),
    "shuffle": (shuffle, 1.0),
    "token_cutoff": (token_cutoff, 0.2),
    "feature_cutoff": (feature_cutoff, 0.2),
    "dropout": (dropout, 0.2),
}
STRENGTH = {name: strength for name, (_, strength) in _NOISES.items()}
# Kinds of generated negatives. "mixture" draws one of the five noises for each sample (the authors'
# public code draws one a batch). The edits are no noise: `TextEdits` makes them in the text.
NEGATIVES = (*_NOISES, "mixture", *NEGATIVE_EDITS, "none")


def generate_negatives(
    texts: TextFeatures, seeds: Tensor, kind: str = "mixture", strength: float | None = None
) -> TextFeatures:
    """Return one Asymmetry-I negative of every text (AsCL section 2.2, ACF-R+ definition 2).

    Args:
        texts: words (T, L, D), projected, as the scorer sees them.
        seeds: (T,) int64; a text's noise is a function of its own seed and nothing else, the same
            on every device, whatever else is in the batch and however long the padding.
        kind: one of `NEGATIVES` except "none" and edits of the text.
        strength: size of the noise, in the unit each noise names; by default its `STRENGTH`.

    Returns:
        TextFeatures of the same shape and mask, with the same padding. Differentiable. A pooled
        feature moves by as much as the mean word does.

    Raises:
        ValueError: no texts, an unknown kind, or seeds of another length.
    """
    if kind not in _NOISES and kind != "mixture":
        raise ValueError(f"kind must be one of {', '.join(_NOISES)}, mixture, got {kind!r}")
    if seeds.shape != (len(texts),):
        raise ValueError(f"need one seed a text, ({len(texts)},), got {tuple(seeds.shape)}")
    if not len(texts):
        raise ValueError("generate_negatives needs at least one text, got 0")
    rows = []
    names = list(_NOISES)
    # taken apart at once: the gradient of one text taken out alone is as large as all of them
    for index, (words, seed) in enumerate(zip(texts.words.unbind(), seeds.tolist(), strict=True)):
        generator = torch.Generator().manual_seed(seed)
        name = kind
        if kind == "mixture":
            name = names[int(torch.randint(len(names), (), generator=generator))]
        noise, amount = _NOISES[name]
        amount = amount if strength is None else strength
        if texts.mask is None:
            rows.append(noise(words, amount, generator))
            continue
        real = texts.mask[index].nonzero()[:, 0]
        if len(real):
            words = words.index_copy(0, real, noise(words[real], amount, generator))
        rows.append(words)
    noisy = TextFeatures(torch.stack(rows), texts.mask)
    if texts.pooled is None:
        return noisy
    moved = whole_texts(noisy) - mean_of_places(wide(texts.words), texts.mask)
    return replace(noisy, pooled=texts.pooled + moved.to(texts.pooled))
