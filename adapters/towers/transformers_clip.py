"""Dual encoders of transformers (CLIP, SigLIP, BLIP and their kin) as the two halves of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.adapters.missing import naming, needs
from ascl_plugin.adapters.towers.grid import grid_cells, grid_side
from ascl_plugin.adapters.towers.transformers_base import (
    TransformersEncoder,
    TransformersWords,
    Tuning,
)
from ascl_plugin.adapters.towers.words import word_mask
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.retrieval.model import RetrievalModel

with needs("transformers", "recipes"):
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        BlipForImageTextRetrieval,
    )

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

IMAGE, TEXT = ("vision", "visual", "image"), ("text",)  # how the parts of a half are named
# trained on texts padded to the whole context, every position attended to
UNMASKED = ("siglip", "siglip2")


def attach(
    model: str,
    *,
    num_regions: int | None = None,
    max_words: int | None = None,
    keep_special_tokens: bool = True,
    fusion: dict[str, object] | None = None,
    dim: int = 1024,
    feature_norm: str = "layer",
    **tuning: Unpack[Tuning],
) -> RetrievalModel:
    """Return a retrieval model on both halves of a dual encoder of transformers.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        num_regions: as `ClipRegions`.
        max_words, keep_special_tokens: as `ClipWords`.
        fusion, dim, feature_norm: as `RetrievalModel`.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    >>> attach("openai/clip-vit-base-patch32", tune="partial")  # doctest: +SKIP
    """
    both = {"name": "transformers_clip", "model": model, **tuning}
    words = {"max_words": max_words, "keep_special_tokens": keep_special_tokens}
    return RetrievalModel(
        {**both, "num_regions": num_regions}, {**both, **words}, fusion, dim, feature_norm
    )


class ClipRegions(TransformersEncoder):
    """The image half: patch tokens, without [CLS], as regions; its embedding as pooled feature.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        num_regions: K, a square: patches are averaged to a grid of K cells; None keeps the patches.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, K, region_dim), pooled (I, pooled_dim); pooled
        equals `get_image_features` of the bare model.

    Raises:
        OSError, ImportError: as `TransformersEncoder`.
        ValueError: no dual encoder, or one that takes no picture of fixed size (NaFlex); weights
            that are not in the checkpoint; an option out of range.
    """

    def __init__(
        self, model: str, num_regions: int | None = None, **tuning: Unpack[Tuning]
    ) -> None:
        side = None if num_regions is None else grid_side(num_regions)
        super().__init__(model, **tuning)
        self.num_regions, self.side = num_regions, side
        config = getattr(self.model.config, "vision_config", None)
        self.patch_size: int = getattr(config, "patch_size", 0)
        if config is None or not self.patch_size:
            raise ValueError(
                f"{model!r} has no vision_config.patch_size: no patches to take for regions"
            )
        with naming(model):
            self.processor = AutoImageProcessor.from_pretrained(self.source)
        pixels = torch.zeros(1, 3, config.image_size, config.image_size)
        self.region_dim, self.pooled_dim = self._probe(pixels)

    def _load(self) -> nn.Module:
        return load_half(self.source, IMAGE)

    def _prune(self) -> None:
        _drop_other_half(self.model, IMAGE)

    def preprocess(self, picture: Image) -> Tensor:
        """Return the pixels (3, H, W) of an RGB picture, by the model's own image processor."""
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0]

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return the patches, or the grid they are averaged to, and the pooled embedding."""
        with self.gradients():
            tokens, pooled = self._output(pixel_values)
            height, width = (n // self.patch_size for n in pixel_values.shape[-2:])
            if tokens.ndim != 3 or tokens.shape[1] < height * width:
                raise ValueError(
                    f"the image tower of {self.model_name!r} gives {tuple(tokens.shape)}, expected "
                    f"a token for each of {height} x {width} patches"
                )
            patches = tokens[:, -height * width :]  # [CLS], where there is one, comes first
            if self.side is not None:
                grid = patches.transpose(1, 2).unflatten(2, (height, width))
                patches = grid_cells(grid, self.side)
            return ImageFeatures(patches, None, pooled)

    def _output(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (I, 1 + P or P, D) and the pooled embedding (I, D')."""
        if isinstance(self.model, BlipForImageTextRetrieval):
            tokens = self.model.vision_model(pixel_values=pixel_values).last_hidden_state
            return tokens, self.model.vision_proj(tokens[:, 0])
        output = self.model.get_image_features(pixel_values=pixel_values)
        return output.last_hidden_state, output.pooler_output

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON."""
        preprocessing = json.loads(self.processor.to_json_string())
        return self._fingerprint(num_regions=self.num_regions, preprocessing=preprocessing)


class ClipWords(TransformersWords):
    """The text half: last hidden states as words.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        max_words: longer texts are cut to this number of tokens, special ones included; None, and
            any number above it, mean the model's context (77 for CLIP, 64 for SigLIP).
        keep_special_tokens: count start and end tokens as words; False masks them out.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L). SigLIP
        attends to its padding, as it was trained to; the mask is True at real tokens all the same.
    """

    def __init__(
        self,
        model: str,
        max_words: int | None = None,
        keep_special_tokens: bool = True,
        **tuning: Unpack[Tuning],
    ) -> None:
        super().__init__(model, max_words, keep_special_tokens, **tuning)
        positions = self.model.config.text_config.max_position_embeddings
        self.context: int = min(positions, self.tokenizer.model_max_length)
        self.max_words = min(self.max_words, self.context)
        self.unmasked = self.model.config.model_type in UNMASKED
        (self.word_dim,) = self._probe(**self.tokenize(["a"]))

    def _load(self) -> nn.Module:
        return load_half(self.source, TEXT)

    def _prune(self) -> None:
        _drop_other_half(self.model, TEXT)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (T, L); L: the longest text, of SigLIP the context.

        The mask is 1 at real tokens, also where the model itself is given no mask.
        """
        tokens = super().tokenize(texts)
        if self.unmasked:
            short = self.context - tokens["input_ids"].shape[1]
            sides = (short, 0) if self.tokenizer.padding_side == "left" else (0, short)
            for name, value in (("input_ids", self.tokenizer.pad_token_id), ("attention_mask", 0)):
                tokens[name] = functional.pad(tokens[name], sides, value=value)
        return tokens

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return the last hidden states; padding is masked, special tokens if so asked."""
        with self.gradients():
            words, _ = self._output(input_ids, attention_mask)
        return TextFeatures(words, word_mask(input_ids, attention_mask, self.dropped))

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the texts' embeddings (T, D), equal to `get_text_features` of the bare model."""
        with self.gradients():
            return self._output(input_ids, attention_mask)[1]

    def _output(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return last hidden states (T, L, D) and the pooled embedding (T, D')."""
        mask = None if self.unmasked else attention_mask
        if isinstance(self.model, BlipForImageTextRetrieval):
            output = self.model.text_encoder(input_ids=input_ids, attention_mask=mask)
            return output.last_hidden_state, self.model.text_proj(output.last_hidden_state[:, 0])
        output = self.model.get_text_features(input_ids=input_ids, attention_mask=mask)
        return output.last_hidden_state, output.pooler_output


def load_half(source: str, parts: tuple[str, ...]) -> nn.Module:
    """Load the model at `source`, all weights of the half whose names begin with `parts`."""
    config = AutoConfig.from_pretrained(source)
    if config.model_type == "siglip2":
        raise ValueError(
            f"{source!r} is a SigLIP 2 of NaFlex, which takes pictures of any shape as patches; "
            "this adapter takes pictures of one size. SigLIP 2 exists for fixed sizes, too, such "
            "as google/siglip2-base-patch16-256"
        )
    # AutoModel would build a BlipModel, whose text tower has other names, with random weights
    blip = "BlipForImageTextRetrieval" in (config.architectures or ())
    kind: Any = BlipForImageTextRetrieval if blip else AutoModel
    # float32: a checkpoint in half precision would be loaded as it is
    model, report = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    embeds = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
    towers = any(name.startswith(parts) for name, _ in model.named_children())
    if not (blip or embeds) or not towers:  # BLIP-2 embeds, with a language model
        raise ValueError(
            f"{source!r} holds a {type(model).__name__}, no dual encoder: it needs two towers, "
            "get_image_features and get_text_features, as CLIP, SigLIP and BLIP have"
        )
    absent = sorted(n for n in report["missing_keys"] if n.startswith(parts))
    if absent:
        raise ValueError(f"the checkpoint of {source!r} has no weights for {absent[0]!r}")
    return model


def _drop_other_half(model: nn.Module, parts: tuple[str, ...]) -> None:
    for name, _ in list(model.named_children()):
        if not name.startswith(parts):
            delattr(model, name)
    for name, _ in list(model.named_parameters(recurse=False)):
        delattr(model, name)  # logit_scale and its like
