"""Text encoders of transformers: the last hidden states as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ascl_plugin.adapters.frozen import PretrainedEncoder, check_tune, weights_hash
from ascl_plugin.adapters.missing import explain, naming
from ascl_plugin.adapters.package_path import package_path
from ascl_plugin.features import TextFeatures

try:
    from transformers import AutoModel, AutoTokenizer
except (ImportError, RuntimeError) as error:
    raise explain(error, "transformers", "recipes") from error


class BertWords(PretrainedEncoder):
    """BERT or any encoder of its kind, one feature per word piece (both papers use BERT).

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        tune: "frozen" (always in evaluation mode) or "full".
        max_words: longer texts are cut to so many word pieces, [CLS] and [SEP] among them.
        keep_special_tokens: whether [CLS] and [SEP] count as words; False masks them out.

    Attributes:
        word_dim: width of a word.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L).

    Raises:
        OSError: neither a local folder nor reachable on the hub.
        ImportError: a package that is not installed.
        ValueError: fewer than three word pieces, so no word fits.
    """

    def __init__(
        self,
        model: str = "bert-base-uncased",
        tune: str = "frozen",
        max_words: int = 64,
        keep_special_tokens: bool = True,
    ) -> None:
        super().__init__()
        check_tune(tune, ("frozen", "full"))
        if max_words < 3:
            raise ValueError(f"max_words must be 3 at least ([CLS] word [SEP]), got {max_words}")
        self.model_name = model
        self.max_words = max_words
        self.keep_special_tokens = keep_special_tokens
        source = package_path(model)
        with naming(model):
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            # a checkpoint stored in half precision would come as that
            self.model = AutoModel.from_pretrained(source, dtype=torch.float32)
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # its output is not used, so its weights would get no gradient
        self.word_dim: int = self.model.config.hidden_size
        if tune == "frozen":
            self.freeze()
        else:
            self.train()

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Strings -> `input_ids`, `attention_mask`, (T, L) each, padded to the longest."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_words,
            return_tensors="pt",
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than `max_words`."""
        rows = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return sum(len(row) > self.max_words for row in rows)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Last hidden states; padding is masked, and special tokens if so asked."""
        with self.gradients():
            words = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.bool()
        if not self.keep_special_tokens:
            special = torch.tensor(self._frame(), device=input_ids.device)
            mask = mask & ~torch.isin(input_ids, special)
        return TextFeatures(words, mask)

    def fingerprint(self) -> dict[str, Any]:
        """All that the features depend on, as JSON; the tokenizer is the one of the model."""
        return {
            "encoder": "bert_words",
            "model": self.model_name,
            "weights": weights_hash(self.model.state_dict()),
            "max_words": self.max_words,
            "keep_special_tokens": self.keep_special_tokens,
        }

    def _frame(self) -> list[int]:
        """Ids of the tokens put around a text; [UNK] is special too, but a word."""
        t = self.tokenizer
        ids = (t.cls_token_id, t.sep_token_id, t.bos_token_id, t.eos_token_id)
        return [i for i in ids if i is not None]
