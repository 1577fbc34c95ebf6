"""Asymmetry-I negatives: noise in the word embeddings of a caption, never in its padding.

The noise acts after the encoder, on the words a scorer sees. A scorer for which a text is a set of
words, as `CrossModalFusion` is, cannot tell a shuffled caption from the caption: for it "shuffle"
adds a competitor that scores exactly what the positive scores. It is here because the papers use
it, and for scorers that do read the order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ascl_plugin.features import TextFeatures, wide

# A noise takes real words (L, D), a strength and a generator, and returns new words (L, D).
Noise = Callable[[Tensor, float, torch.Generator], Tensor]


def gaussian(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """h ~ N(0, sigma^2) added to every element; sigma = strength times the words' own RMS.

    The papers give no sigma; relative to the words it means the same at any scale of embedding.
    """
    noise = torch.randn(words.shape, generator=generator).to(words)
    return words + strength * wide(words.detach()).square().mean().sqrt() * noise


def shuffle(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The words in another order (uniform over orders; `strength` has no meaning here)."""
    return words[torch.randperm(len(words), generator=generator).to(words.device)]


def token_cutoff(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Whole words (rows) set to zero: a share `strength` of them, at least one."""
    count = max(1, round(strength * len(words)))
    gone = torch.randperm(len(words), generator=generator)[:count].to(words.device)
    return words.index_fill(0, gone, 0.0)


def feature_cutoff(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Whole features (columns) set to zero: a share `strength` of them, at least one."""
    width = words.shape[1]
    count = max(1, round(strength * width))
    gone = torch.randperm(width, generator=generator)[:count].to(words.device)
    return words.index_fill(1, gone, 0.0)


def dropout(words: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Elements set to zero with probability `strength`; the rest keeps its size (no rescaling)."""
    return words * (torch.rand(words.shape, generator=generator) >= strength).to(words)


_NOISES: dict[str, Noise] = {
    "gaussian": gaussian,
    "shuffle": shuffle,
    "token_cutoff": token_cutoff,
    "feature_cutoff": feature_cutoff,
    "dropout": dropout,
}
# "mixture" draws one of the five for each sample (the authors' public code draws one a batch);
# "insert" is no noise: `ascl_plugin.asymmetry.captions.phrase_bank` makes it in the text.
NEGATIVES = (*_NOISES, "mixture", "insert", "none")
STRENGTH = {
    "gaussian": 0.5,
    "shuffle": 1.0,
    "token_cutoff": 0.2,
    "feature_cutoff": 0.2,
    "dropout": 0.2,
}


def generate_negatives(
    texts: TextFeatures, seeds: Tensor, kind: str = "mixture", strength: float | None = None
) -> TextFeatures:
    """One Asymmetry-I negative for every text (AsCL section 2.2, ACF-R+ definition 2).

    Args:
        texts: words (T, L, D), projected, as the scorer sees them.
        seeds: (T,) int64; a text's noise is a function of its own seed and nothing else, the same
            on every device, whatever else is in the batch and however long the padding.
        kind: one of `NEGATIVES` but "insert" and "none".
        strength: of the noise, in the unit each noise names; default `STRENGTH` of each.

    Returns:
        TextFeatures of the same shape and mask; padding stays as it was. Differentiable.

    Raises:
        ValueError: an unknown kind, or seeds of another length.
    """
    if kind not in _NOISES and kind != "mixture":
        raise ValueError(f"kind must be one of {', '.join(_NOISES)}, mixture, got {kind!r}")
    if seeds.shape != (len(texts),):
        raise ValueError(f"need one seed a text, ({len(texts)},), got {tuple(seeds.shape)}")
    rows = []
    names = list(_NOISES)
    # taken apart at once: the gradient of one text taken out alone is as large as all of them
    for index, (words, seed) in enumerate(zip(texts.words.unbind(), seeds.tolist(), strict=True)):
        generator = torch.Generator().manual_seed(seed)
        name = kind
        if kind == "mixture":
            name = names[int(torch.randint(len(names), (), generator=generator))]
        amount = STRENGTH[name] if strength is None else strength
        if texts.mask is None:
            rows.append(_NOISES[name](words, amount, generator))
            continue
        real = texts.mask[index].nonzero()[:, 0]
        if len(real):
            words = words.index_copy(0, real, _NOISES[name](words[real], amount, generator))
        rows.append(words)
    return TextFeatures(torch.stack(rows), texts.mask)
