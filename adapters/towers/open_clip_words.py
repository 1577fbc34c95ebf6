"""open_clip's text towers, its own transformer or one of transformers: tokens as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.adapters.frozen import weights_hash
from ascl_plugin.adapters.missing import explain
from ascl_plugin.adapters.towers.open_clip_half import OpenClipHalf, check_blocks, create
from ascl_plugin.features import TextFeatures

try:
    import open_clip
    from open_clip.hf_model import HFTextEncoder
except (ImportError, RuntimeError) as error:
    raise explain(error, "open_clip", "open-clip") from error


class OpenClipWords(OpenClipHalf):
    """The text tower: its last tokens as words, from open_clip's own transformer or a HF one.

    Args:
        model, weights, tune, unfrozen_blocks, lora, gradient_checkpointing: as
            `OpenClipImages`. A HF tower without `weights` has the weights of its own hub id.
        max_words: longer texts are cut to so many tokens, start and end among them; None and what
            exceeds it stand for the model's context (77 for CLIP).
        keep_special_tokens: whether start and end tokens count as words; False masks them out.

    Attributes:
        word_dim: width of a word.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L). A tower that
        was trained to look at padding (SigLIP) does; the mask tells real tokens all the same.

    Raises:
        OSError, ValueError: as `OpenClipImages`; `max_words` below 3.
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        lora: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        max_words: int | None = None,
        keep_special_tokens: bool = True,
    ) -> None:
        super().__init__()
        if max_words is not None and max_words < 3:
            raise ValueError(f"max_words must be 3 at least (start, word, end), got {max_words}")
        self.model_name = model
        self.keep_special_tokens = keep_special_tokens
        net = create(model, weights)
        del net.visual
        self.net = net
        try:
            self.tokenizer = open_clip.get_tokenizer(model)
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            raise OSError(f"the tokenizer of {model} cannot be had ({reason})") from error
        self.context: int = self.tokenizer.context_length
        self.max_words = min(max_words or self.context, self.context)
        self.pad_id, self.special_ids = _special_tokens(self.tokenizer)
        tower = getattr(net, "text", net)
        if gradient_checkpointing:
            if hasattr(tower, "set_grad_checkpointing") and tower is not net:
                tower.set_grad_checkpointing(True)
            else:
                tower.transformer.grad_checkpointing = True
        if tune == "partial":
            _unlock_words(net, unfrozen_blocks)
        self._apply_tune(tune, lora, tower.transformer)
        with torch.enable_grad():
            probe = self.eval()(**self.tokenize(["a"])).words
            self._leave_idle_out(probe.sum())
        self.word_dim = probe.shape[-1]
        self.train()

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Strings -> `input_ids`, `attention_mask` (T, L), padded to the longest."""
        ids = self.tokenizer(list(texts), context_length=self.max_words)
        real = self._real(ids)
        length = int(real.any(0).nonzero().max()) + 1
        return {"input_ids": ids[:, :length], "attention_mask": real[:, :length]}

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than `max_words`."""
        return int(self._real(self.tokenizer(list(texts), self.max_words + 1)).all(1).sum())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """The last tokens; padding is masked, and start and end if so asked."""
        mask = attention_mask.bool()
        with self.gradients():
            words = self._tokens(input_ids)[:, : input_ids.shape[1]]
        if not self.keep_special_tokens:
            special = torch.tensor(self.special_ids, device=input_ids.device)
            mask = mask & ~torch.isin(input_ids, special)
        return TextFeatures(words, mask)

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The text's embedding (T, D), what `encode_text` of the bare model gives."""
        with self.gradients():
            return self.half.encode_text(self._padded(input_ids))

    def fingerprint(self) -> dict[str, Any]:
        """All that the features depend on, as JSON; the tokenizer is the one of the model."""
        return {
            "encoder": "open_clip_words",
            "model": self.model_name,
            "weights": weights_hash(self.net.state_dict()),
            "max_words": self.max_words,
            "keep_special_tokens": self.keep_special_tokens,
        }

    def _tokens(self, ids: Tensor) -> Tensor:
        """(T, L, word_dim), normalised as before the tower's own pooling."""
        tower = getattr(self.half, "text", self.half)
        if isinstance(tower, HFTextEncoder):
            mask = (ids != tower.config.pad_token_id).long()
            return tower.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        causal = tower.attn_mask
        if causal is None:
            ids = self._padded(ids)
        else:  # no word sees what comes after it, so padding need not be computed
            causal = causal[: ids.shape[1], : ids.shape[1]]
        dtype = tower.transformer.get_cast_dtype()
        words = tower.token_embedding(ids).to(dtype)
        words = words + tower.positional_embedding[: ids.shape[1]].to(dtype)
        return tower.ln_final(tower.transformer(words, attn_mask=causal))

    def _padded(self, ids: Tensor) -> Tensor:
        return functional.pad(ids, (0, self.context - ids.shape[1]), value=self.pad_id)

    def _real(self, ids: Tensor) -> Tensor:
        """(T, L) bool, True at tokens of the text, its start and end."""
        real = ids != self.pad_id
        if isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            # its padding is the id of "!", too, so what stands before the end is real
            return real.flip(1).cummax(1).values.flip(1)
        if self.pad_id in self.special_ids:  # the end is written as the first padding
            real[:, 1:] |= real[:, :-1].clone()
        return real


def _unlock_words(net: Any, blocks: int) -> None:
    check_blocks(blocks)
    tower = getattr(net, "text", net)
    if isinstance(tower, HFTextEncoder):  # open_clip does not know where a BERT has its layers
        tower.transformer.requires_grad_(False)
        lists: Any = (m for m in tower.transformer.modules() if isinstance(m, nn.ModuleList))
        max(lists, key=len)[-blocks:].requires_grad_(True)
    else:
        # open_clip counts the projection as the last layer
        net.lock_text_tower(unlocked_layers=blocks + (tower.text_projection is not None))


def _special_tokens(tokenizer: Any) -> tuple[int, list[int]]:
    """(padding, [start, end, ...])."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        return 0, [tokenizer.sot_token_id, tokenizer.eot_token_id]
    t = tokenizer.tokenizer
    ids = {t.cls_token_id, t.sep_token_id, t.bos_token_id, t.eos_token_id} - {None}
    return t.pad_token_id, sorted(ids)
