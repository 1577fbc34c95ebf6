"""Text encoders of transformers: the last hidden states as words."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L).
    """

    def __init__(
        self,
        model: str = "bert-base-uncased",
        max_words: int = 64,
        keep_special_tokens: bool = True,
        **tuning: Unpack[Tuning],
    ) -> None:
        super().__init__(model, max_words, keep_special_tokens, **tuning)
        (self.word_dim,) = self._probe(**self.tokenize(["a"]))

    def _prune(self) -> None:
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return the last hidden states; padding is masked, special tokens if so asked."""
        with self.gradients():
            words = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return TextFeatures(words, word_mask(input_ids, attention_mask, self.dropped))
