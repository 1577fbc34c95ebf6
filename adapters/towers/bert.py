"""Text encoders of transformers: hidden states as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ascl_plugin.adapters.towers.transformers_base import TransformersWords, Tuning
from ascl_plugin.adapters.towers.words import word_mask
from ascl_plugin.features import TextFeatures

if TYPE_CHECKING:
    from typing_extensions import Unpack


class BertWords(TransformersWords):
    """BERT or any encoder of its kind, one feature per word piece (both papers use BERT).

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        max_words: longer texts are cut to this number of word pieces, [CLS] and [SEP] included.
        keep_special_tokens: count [CLS] and [SEP] as words; False masks them out.
        layers: hidden states that make a word, side by side: -1 is the last layer's output, 0 the
            embeddings. Lower layers tell words apart that the last one has mixed with others.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L).

    Raises:
        ValueError: `layers` that the model does not have, or none.
    """

    def __init__(
        self,
        model: str = "bert-base-uncased",
        max_words: int = 64,
        keep_special_tokens: bool = True,
        layers: Sequence[int] = (-1,),
        **tuning: Unpack[Tuning],
    ) -> None:
        super().__init__(model, max_words, keep_special_tokens, **tuning)
        states = self.model.config.num_hidden_layers + 1
        if not layers or not all(-states <= layer < states for layer in layers):
            raise ValueError(f"layers must be in [{-states}, {states - 1}], got {list(layers)}")
        self.layers = list(layers)
        (self.word_dim,) = self._probe(**self.tokenize(["a"]))

    def _prune(self) -> None:
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return hidden states; padding is masked, special tokens if so asked."""
        several = self.layers != [-1]
        with self.gradients():
            found = self.model(input_ids, attention_mask, output_hidden_states=several)
            if several:
                words = torch.cat([found.hidden_states[layer] for layer in self.layers], dim=-1)
            else:
                words = found.last_hidden_state
        return TextFeatures(words, word_mask(input_ids, attention_mask, self.dropped))

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON."""
        # caches of before the option stay valid
        return super().fingerprint() | ({} if self.layers == [-1] else {"layers": self.layers})
