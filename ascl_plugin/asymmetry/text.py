"""Positives generated on raw text: Asymmetry-II tells more, Asymmetry-III tells less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ascl_plugin.asymmetry.captions.edits import join, truncate

# Strategies of `generate_positive`, and "none". "mixed" draws one of the two for each sample.
# "join" is Asymmetry-II of captions that are encoded one by one, by the model (`partner`).
POSITIVES = ("concatenate", "truncate", "mixed", "join", "none")


def generate_positive(
    captions: Sequence[str], chosen: int, strategy: str, generator: np.random.Generator
) -> str:
    """Return a T+ for an image (AsCL section 2.2, ACF-R+ definitions 3 and 4).

    Args:
        captions: all captions of the image.
        chosen: index of the caption T that is in the batch; truncation shortens this one.
        strategy: "concatenate" (Asymmetry-II: two different captions, one after the other; a single
            caption stays alone), "truncate" (Asymmetry-III: the first half) or "mixed".
        generator: the only source of chance.
    """
    if strategy not in POSITIVES or strategy in ("join", "none"):
        raise ValueError(f"positives must be one of {', '.join(POSITIVES)}, got {strategy!r}")
    if strategy == "mixed":
        strategy = ("concatenate", "truncate")[generator.integers(2)]
    if strategy == "truncate":
        return truncate(captions[chosen])
    if len(captions) == 1:
        return captions[0]
    first, second = generator.choice(len(captions), size=2, replace=False)
    return join(captions[first], captions[second])
