"""Tuned halves of a dual encoder of transformers, back as the model they came from."""

from __future__ import annotations

import os
from pathlib import Path

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.towers.attached import both_halves
from ascl_plugin.adapters.towers.transformers_clip import IMAGE, ClipRegions, ClipWords, load_half
from ascl_plugin.disk import written
from ascl_plugin.retrieval.model import RetrievalModel

with needs("transformers", "recipes"):
    from transformers import PreTrainedModel


def export(model: RetrievalModel, folder: str | os.PathLike[str]) -> None:
    """Write the towers of a model made by `attach` as a folder that transformers loads.

    `AutoModel.from_pretrained(folder)` gives the tuned CLIP, SigLIP or BLIP, with its processor and
    tokenizer beside it; `logit_scale` and its like are unchanged. Projections to the joint width
    and the fusion are not transformers' and are left out.

    Args:
        model: both encoders of one model of transformers.
        folder: written aside, then moved into place; an older one is replaced.

    Raises:
        TypeError: encoders of another kind.
        ValueError: halves of two models.
    """
    images, words = both_halves(model, ClipRegions, ClipWords)
    whole = load_half(images.source, IMAGE)
    assert isinstance(whole, PreTrainedModel)
    own = {**images.model.state_dict(), **words.model.state_dict()}
    unknown = whole.load_state_dict(own, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"{images.model_name} has no weights {unknown[0]!r}")
    with written(Path(folder)) as aside:
        whole.save_pretrained(aside)
        images.processor.save_pretrained(aside)
        words.tokenizer.save_pretrained(aside)
