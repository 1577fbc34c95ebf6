"""Generated positives, on raw text: Asymmetry-II tells more, Asymmetry-III tells less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# "mixed" draws one of the two for each sample.
POSITIVES = ("concatenate", "truncate", "mixed", "none")


def concatenate(captions: Sequence[str], generator: np.random.Generator) -> str:
    """Asymmetry-II: two different captions of the same image, one after the other.

    An image with a single caption has no second one to add: that caption is returned as it is.
    """
    if len(captions) == 1:
        return captions[0]
    first, second = generator.choice(len(captions), size=2, replace=False)
    return join(captions[first], captions[second])


def join(first: str, second: str) -> str:
    """One after the other; a first that does not end in a stop is given one: two stay two."""
    start = first.strip()
    return f"{start if start[-1:] in '.!?' else start + ' .'} {second.strip()}"


def truncate(caption: str) -> str:
    """Asymmetry-III: the first half of the words, rounded up; one word stays one word."""
    words = caption.split()
    return " ".join(words[: (len(words) + 1) // 2])


def generate_positive(
    captions: Sequence[str], chosen: int, strategy: str, generator: np.random.Generator
) -> str:
    """A T+ for an image (AsCL section 2.2, ACF-R+ definitions 3 and 4).

    Args:
        captions: all captions of the image.
        chosen: index of the caption T that is in the batch; truncation shortens this one.
        strategy: "concatenate", "truncate" or "mixed".
        generator: the only source of chance.
    """
    if strategy == "mixed":
        strategy = ("concatenate", "truncate")[generator.integers(2)]
    if strategy == "concatenate":
        return concatenate(captions, generator)
    if strategy == "truncate":
        return truncate(captions[chosen])
    raise ValueError(f"positives must be one of {', '.join(POSITIVES)}, got {strategy!r}")
