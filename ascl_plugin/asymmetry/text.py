"""Positives generated on raw text: Asymmetry-II tells more, Asymmetry-III tells less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ascl_plugin.asymmetry.captions.edits import join, truncate
from ascl_plugin.asymmetry.captions.text_edits import POSITIVE_EDITS

# Strategies of `generate_positive`, of which "mixed" draws one for each sample.
STRATEGIES = ("concatenate", "truncate", "mixed")
POSITIVES = (*STRATEGIES, *POSITIVE_EDITS, "none")


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
    if strategy not in STRATEGIES:
        raise ValueError(f"positives must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy == "mixed":
        strategy = ("concatenate", "truncate")[generator.integers(2)]
    if strategy == "truncate":
        return truncate(captions[chosen])
    if len(captions) == 1:
        return captions[0]
    first, second = generator.choice(len(captions), size=2, replace=False)
    return join(captions[first], captions[second])
