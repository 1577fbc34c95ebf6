"""Dual encoders of transformers (CLIP, SigLIP, BLIP and their kin) as the two halves of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ascl_plugin.adapters.frozen import grid_side
from ascl_plugin.adapters.missing import explain, naming
from ascl_plugin.adapters.towers.transformers_half import ClipHalf
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.retrieval.model import RetrievalModel

try:
    from transformers import AutoImageProcessor, AutoTokenizer, BlipForImageTextRetrieval
except (ImportError, RuntimeError) as error:
    raise explain(error, "transformers", "recipes") from error

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE, TEXT = ("vision", "visual", "image"), ("text",)  # how the parts of a half are named
# trained on texts padded to the whole context, every position attended to
UNMASKED = ("siglip", "siglip2")


def attach(
    model: str,
    *,
    tune: str = "frozen",
    unfrozen_blocks: int = 2,
    num_regions: int | None = None,
    max_words: int | None = None,
    keep_special_tokens: bool = True,
    gradient_checkpointing: bool = False,
    fusion: dict[str, Any] | None = None,
    dim: int = 1024,
    feature_norm: str = "layer",
) -> RetrievalModel:
    """A retrieval model on both halves of a dual encoder of transformers.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        tune, unfrozen_blocks, num_regions, gradient_checkpointing: as `ClipRegions`.
        max_words, keep_special_tokens: as `ClipWords`.
        fusion, dim, feature_norm: as `RetrievalModel`.

    Raises:
        OSError, ValueError, ImportError: as `ClipRegions` and `ClipWords`.

    >>> attach("openai/clip-vit-base-patch32", tune="partial")  # doctest: +SKIP
    """
    both = {
        "name": "transformers_clip",
        "model": model,
        "tune": tune,
        "unfrozen_blocks": unfrozen_blocks,
        "gradient_checkpointing": gradient_checkpointing,
    }
    words = {"max_words": max_words, "keep_special_tokens": keep_special_tokens}
    return RetrievalModel(
        {**both, "num_regions": num_regions}, {**both, **words}, fusion, dim, feature_norm
    )


class ClipRegions(ClipHalf):
    """The image half: patch tokens, without [CLS], as regions; its embedding as pooled feature.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        tune: "frozen"; "partial", the last `unfrozen_blocks` and what follows them; or "full".
        num_regions: K, a square: patches are averaged to a grid of K cells, as `TimmGrid` does;
            None keeps the patches.
        gradient_checkpointing: compute activations twice and keep fewer of them.

    Attributes:
        region_dim, pooled_dim: widths of the two outputs.

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, K, region_dim), pooled (I, pooled_dim); pooled is
        what `get_image_features` of the bare model gives.

    Raises:
        OSError: neither a local folder nor reachable on the hub.
        ValueError: no dual encoder, or one that takes no picture of fixed size (NaFlex); weights
            that are not in the checkpoint; an option out of range.
    """

    def __init__(
        self,
        model: str,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        num_regions: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(model, IMAGE, tune, unfrozen_blocks, gradient_checkpointing)
        self.num_regions = num_regions
        self.side = None if num_regions is None else grid_side(num_regions)
        config: Any = getattr(self.model.config, "vision_config", None)
        self.patch_size: int = getattr(config, "patch_size", 0)
        if not self.patch_size:
            raise ValueError(
                f"{model!r} has no vision_config.patch_size: no patches to take for regions"
            )
        with naming(model):
            self.processor = AutoImageProcessor.from_pretrained(self.source)
        side = config.image_size
        with torch.enable_grad():
            probe = self.eval()(torch.zeros(1, 3, side, side))
            assert probe.pooled is not None
            self._apply_tune(probe.regions.sum() + probe.pooled.sum())
        self.region_dim = probe.regions.shape[-1]
        self.pooled_dim = probe.pooled.shape[-1]

    def preprocess(self, picture: Image) -> Tensor:
        """PIL picture, RGB -> (3, H, W), by the model's own image processor."""
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0]

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Patches, or the grid they are averaged to, and the pooled embedding."""
        with self.gradients():
            tokens, pooled = _image_output(self.model, pixel_values)
            height, width = (n // self.patch_size for n in pixel_values.shape[-2:])
            if tokens.ndim != 3 or tokens.shape[1] < height * width:
                raise ValueError(
                    f"the image tower of {self.model_name!r} gives {tuple(tokens.shape)}, expected "
                    f"a token for each of {height} x {width} patches"
                )
            patches = tokens[:, -height * width :]  # [CLS], where there is one, comes first
            if self.side is not None:
                grid = patches.transpose(1, 2).unflatten(2, (height, width))
                grid = functional.adaptive_avg_pool2d(grid, self.side)
                patches = grid.flatten(2).transpose(1, 2)
            return ImageFeatures(patches, None, pooled)

    def fingerprint(self) -> dict[str, Any]:
        """All that the features depend on, as JSON."""
        preprocessing = json.loads(self.processor.to_json_string())
        return self._fingerprint(num_regions=self.num_regions, preprocessing=preprocessing)


class ClipWords(ClipHalf):
    """The text half: last hidden states as words.

    Args:
        model, tune, unfrozen_blocks, gradient_checkpointing: as `ClipRegions`.
        max_words: longer texts are cut to so many tokens, special ones among them; None and what
            exceeds it stand for the model's context (77 for CLIP, 64 for SigLIP).
        keep_special_tokens: whether start and end tokens count as words; False masks them out.

    Attributes:
        word_dim: width of a word.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L). SigLIP is
        given its padding to look at, as it was trained; the mask tells real tokens all the same.

    Raises:
        OSError, ValueError: as `ClipRegions`; `max_words` below 3.
    """

    def __init__(
        self,
        model: str,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        max_words: int | None = None,
        keep_special_tokens: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(model, TEXT, tune, unfrozen_blocks, gradient_checkpointing)
        if max_words is not None and max_words < 3:
            raise ValueError(f"max_words must be 3 at least (start, word, end), got {max_words}")
        with naming(model):
            self.tokenizer = AutoTokenizer.from_pretrained(self.source)
        config = self.model.config.text_config
        self.context: int = min(config.max_position_embeddings, self.tokenizer.model_max_length)
        self.max_words = min(max_words or self.context, self.context)
        self.keep_special_tokens = keep_special_tokens
        self.unmasked = self.model.config.model_type in UNMASKED
        with torch.enable_grad():
            probe = self.eval()(**self.tokenize(["a"])).words
            self._apply_tune(probe.sum())
        self.word_dim = probe.shape[-1]

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Strings -> `input_ids`, `attention_mask` (T, L); L: the longest, of SigLIP the context.

        The mask is 1 for real tokens, also where the model itself is given none.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_words,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if self.unmasked:
            short = self.context - ids.shape[1]
            sides = (short, 0) if self.tokenizer.padding_side == "left" else (0, short)
            ids = functional.pad(ids, sides, value=self.tokenizer.pad_token_id)
            mask = functional.pad(mask, sides)
        return {"input_ids": ids, "attention_mask": mask}

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than `max_words`."""
        rows = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return sum(len(row) > self.max_words for row in rows)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Last hidden states; padding is masked, and special tokens if so asked."""
        with self.gradients():
            words, _ = self._output(input_ids, attention_mask)
        mask = attention_mask.bool()
        if not self.keep_special_tokens:
            t = self.tokenizer
            ids = {t.cls_token_id, t.sep_token_id, t.bos_token_id, t.eos_token_id} - {None}
            mask = mask & ~torch.isin(input_ids, torch.tensor(sorted(ids), device=mask.device))
        return TextFeatures(words, mask)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The text's embedding (T, D), what `get_text_features` of the bare model gives."""
        with self.gradients():
            return self._output(input_ids, attention_mask)[1]

    def _output(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return _text_output(self.model, input_ids, None if self.unmasked else attention_mask)

    def fingerprint(self) -> dict[str, Any]:
        """All that the features depend on, as JSON; the tokenizer is the one of the model."""
        return self._fingerprint(
            max_words=self.max_words, keep_special_tokens=self.keep_special_tokens
        )


def _image_output(model: Any, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens (I, 1 + P or P, D), pooled embedding (I, D'))."""
    if isinstance(model, BlipForImageTextRetrieval):
        tokens = model.vision_model(pixel_values=pixel_values).last_hidden_state
        return tokens, model.vision_proj(tokens[:, 0])
    output = model.get_image_features(pixel_values=pixel_values)
    return output.last_hidden_state, output.pooler_output


def _text_output(model: Any, input_ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(last hidden states (T, L, D), pooled embedding (T, D'))."""
    if isinstance(model, BlipForImageTextRetrieval):
        words = model.text_encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return words, model.text_proj(words[:, 0])
    output = model.get_text_features(input_ids=input_ids, attention_mask=mask)
    return output.last_hidden_state, output.pooler_output
