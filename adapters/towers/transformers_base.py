"""Models of transformers as encoders: loaded by name, trained as far as asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.frozen import PretrainedEncoder
from ascl_plugin.adapters.missing import naming, needs
from ascl_plugin.adapters.package_path import package_path
from ascl_plugin.adapters.towers.words import (
    check_max_words,
    check_tokenizer,
    count_unknown,
    special_ids,
)

with needs("transformers", "recipes"):
    from transformers import AutoModel, AutoTokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Tuning(TypedDict, total=False):
    """Options of `TransformersEncoder`."""

    tune: str
    unfrozen_blocks: int
    gradient_checkpointing: bool


class TransformersEncoder(PretrainedEncoder):
    """Base of encoders that are models of transformers.

    Args:
        model: hub id, local folder, or ``package:NAME/folder`` inside an installed package.
        tune: "frozen"; "partial", the last `unfrozen_blocks` blocks and everything after them; or
            "full".
        unfrozen_blocks: number of blocks that "partial" trains.
        gradient_checkpointing: compute activations twice and keep fewer of them.

    Raises:
        OSError: neither a local folder nor reachable on the hub.
        ImportError: a package that is not installed.
        ValueError: an option out of range.
    """

    TUNE = ("frozen", "partial", "full")
    model: Any

    def __init__(
        self,
        model: str,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(model, tune)
        self.source = package_path(model)
        with naming(model):
            self.model = self._load()
        if gradient_checkpointing:
            if hasattr(self.model, "activation_checkpointing_enable"):
                self.model.activation_checkpointing_enable()
            else:  # the name before transformers 5.23
                self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._prune()
        if tune == "partial":
            self._freeze_before(unfrozen_blocks)

    def _load(self) -> nn.Module:
        # float32: a checkpoint in half precision would be loaded as it is
        return AutoModel.from_pretrained(self.source, dtype=torch.float32)

    def _prune(self) -> None:
        """Drop the parts of the model that the encoder does not use."""

    def _freeze_before(self, unfrozen_blocks: int) -> None:
        """Freeze what comes before the last blocks."""
        lists = (m for m in self.model.modules() if isinstance(m, nn.ModuleList))
        blocks = max(lists, key=len, default=nn.ModuleList())
        if not 1 <= unfrozen_blocks <= len(blocks):
            raise ValueError(
                f"unfrozen_blocks must be 1 to {len(blocks)}, the blocks of {self.model_name!r}, "
                f"got {unfrozen_blocks}"
            )
        # modules are registered in the order they are passed in
        first = next(blocks[-unfrozen_blocks].parameters())
        for parameter in self.model.parameters():
            if parameter is first:
                break
            parameter.requires_grad_(False)


class TransformersWords(TransformersEncoder):
    """Base of text encoders that are models of transformers.

    Args:
        model: as `TransformersEncoder`.
        max_words: longer texts are cut to this number of tokens, special ones included.
        keep_special_tokens: count start and end tokens as words; False masks them out.
        **tuning: `tune`, `unfrozen_blocks`, `gradient_checkpointing`, as `TransformersEncoder`.
    """

    def __init__(
        self,
        model: str,
        max_words: int | None,
        keep_special_tokens: bool,
        **tuning: Unpack[Tuning],
    ) -> None:
        check_max_words(max_words)
        super().__init__(model, **tuning)
        self.tokenizer = self._load_tokenizer()
        self.max_words = max_words or self.tokenizer.model_max_length
        self.keep_special_tokens = keep_special_tokens
        self.dropped = [] if keep_special_tokens else special_ids(self.tokenizer)

    def _load_tokenizer(self) -> Any:
        expected = self.model.config.get_text_config().vocab_size
        try:
            with naming(self.model_name):
                tokenizer: Any = AutoTokenizer.from_pretrained(self.source)
        except (ValueError, KeyError, TypeError) as error:  # no files that any tokenizer reads
            raise ValueError(
                f"no tokenizer in {self.model_name} (the model expects {expected:,} tokens): "
                f"{str(error).splitlines()[0][:200]}"
            ) from error
        check_tokenizer(tokenizer, self.model_name, expected)
        return tokenizer

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` (T, L), padded to the longest text."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_words,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return the number of [UNK] in texts, and of all tokens of words."""
        return count_unknown(
            self.tokenizer, self.tokenizer(list(texts), verbose=False)["input_ids"]
        )

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that are longer than `max_words`."""
        rows = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return sum(len(row) > self.max_words for row in rows)

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON; the tokenizer is the model's own."""
        return self._fingerprint(
            max_words=self.max_words, keep_special_tokens=self.keep_special_tokens
        )
