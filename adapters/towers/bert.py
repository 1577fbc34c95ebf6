"""Text encoders of transformers: hidden states as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.towers.transformers_base import TransformersWords, Tuning
from ascl_plugin.adapters.towers.words import word_mask
from ascl_plugin.features import TextFeatures

with needs("transformers", "recipes"):
    from transformers import AutoConfig

if TYPE_CHECKING:
    from typing_extensions import Unpack


MAX_WORDS = 64  # by default


class BertWords(TransformersWords):
    """BERT or any encoder of its kind, one feature per word piece (both papers use BERT).

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        max_words: longer texts are cut to this number of word pieces, [CLS] and [SEP] included;
            None: 64, or the model's positions if it has fewer.
        keep_special_tokens: count [CLS] and [SEP] as words; False masks them out.
        layers: hidden states that make a word, side by side: -1 is the last layer's output, 0 the
            embeddings. Lower layers tell words apart that the last one has mixed with others.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L).

    Raises:
        ValueError: `layers` that the model does not have, or none; more `max_words` than positions;
            a model that is no text encoder by itself (a CLIP, a T5).
    """

    def __init__(
        self,
        model: str = "bert-base-uncased",
        max_words: int | None = None,
        keep_special_tokens: bool = True,
        layers: Sequence[int] = (-1,),
        **tuning: Unpack[Tuning],
    ) -> None:
        super().__init__(model, max_words, keep_special_tokens, **tuning)
        positions = _positions(self.model)
        if max_words is None:
            self.max_words = min(MAX_WORDS, positions or MAX_WORDS)
        elif positions is not None and max_words > positions:
            raise ValueError(
                f"max_words {max_words} is more than {model!r} has positions, {positions}"
            )
        states = self.model.config.num_hidden_layers + 1
        if not layers or not all(-states <= layer < states for layer in layers):
            raise ValueError(f"layers must be in [{-states}, {states - 1}], got {list(layers)}")
        self.layers = list(layers)
        (self.word_dim,) = self._probe(**self.tokenize(["a"]))

    def _load(self) -> nn.Module:
        config = AutoConfig.from_pretrained(self.source)
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            raise ValueError(
                f"{self.model_name!r} is a {config.model_type} of two towers: take text_encoder "
                "transformers_clip"
            )
        if config.is_encoder_decoder:
            raise ValueError(
                f"{self.model_name!r} is a {config.model_type} of encoder and decoder; expected an "
                "encoder alone, such as bert-base-uncased"
            )
        return super()._load()

    def _prune(self) -> None:
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return hidden states; padding is masked, special tokens if so asked."""
        several = self.layers != [-1]
        with self.gradients():
            found = self.model(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=several
            )
            if several:
                words = torch.cat([found.hidden_states[layer] for layer in self.layers], dim=-1)
            else:
                words = found.last_hidden_state
        return TextFeatures(words, word_mask(input_ids, attention_mask, self.dropped))

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON."""
        # caches of before the option stay valid
        return super().fingerprint() | ({} if self.layers == [-1] else {"layers": self.layers})


def _positions(model: nn.Module) -> int | None:
    """Return the number of word pieces a model takes; None: any number."""
    for name, module in model.named_modules():
        absolute = isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        if absolute and module.padding_idx is not None:  # RoBERTa's begin after the padding's
            return int(module.num_embeddings) - module.padding_idx - 1
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
