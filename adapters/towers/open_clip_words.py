"""open_clip's text towers, its own transformer or one of transformers: tokens or texts as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.towers.open_clip_half import HalfOptions, OpenClipHalf, create
from ascl_plugin.adapters.towers.words import (
    check_embedding,
    check_max_words,
    check_tokenizer,
    count_unknown,
    special_ids,
    word_mask,
)
from ascl_plugin.features import TextFeatures

with needs("open_clip", "open-clip"):
    import open_clip
    from open_clip.hf_model import HFTextEncoder

if TYPE_CHECKING:
    from typing_extensions import Unpack


class OpenClipWords(OpenClipHalf):
    """The text tower: its last tokens as words, from open_clip's own transformer or a HF one.

    Args:
        model, weights: as `OpenClipHalf`. A HF tower without `weights` has those of its hub id.
        max_words: longer texts are cut to this number of tokens, start and end included; None, and
            any number above it, mean the model's context (77 for CLIP).
        keep_special_tokens: count start and end tokens as words; False masks them out.
        embedding: give each text's embedding, equal to `encode_text` of the bare model: True, as
            its only word, without a mask (`keep_special_tokens` then says nothing); "beside", as
            pooled feature beside its words.
        **half: `tune`, `unfrozen_blocks`, `lora`, `gradient_checkpointing`, as `OpenClipHalf`.

    Shapes:
        input_ids (T, L), attention_mask (T, L) -> words (T, L, word_dim), mask (T, L). A tower
        trained to attend to padding (SigLIP) does so; the mask is True at real tokens all the same.
        With `embedding`: words (T, 1, word_dim); "beside": pooled (T, pooled_dim).
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        max_words: int | None = None,
        keep_special_tokens: bool = True,
        embedding: bool | str = False,
        **half: Unpack[HalfOptions],
    ) -> None:
        check_max_words(max_words)
        check_embedding(embedding)
        super().__init__(model, weights, **half)
        try:
            self.tokenizer = open_clip.get_tokenizer(model)
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            raise OSError(f"the tokenizer of {model} cannot be had ({reason})") from error
        self.context: int = self.tokenizer.context_length
        self.max_words = min(max_words or self.context, self.context)
        self.keep_special_tokens = keep_special_tokens
        self.embedding = embedding
        self.own_tokenizer = isinstance(self.tokenizer, open_clip.SimpleTokenizer)
        expected = self._vocabulary()
        if not self.own_tokenizer:
            check_tokenizer(self.tokenizer.tokenizer, model, expected)
        elif (tokens := len(self.tokenizer.encoder)) > expected:
            raise ValueError(
                f"{model} has no hf_tokenizer_name: open_clip's own tokenizer has {tokens:,} "
                f"tokens, the model expects {expected:,}"
            )
        if self.own_tokenizer:
            self.pad_id = 0
            self.special_ids = [self.tokenizer.sot_token_id, self.tokenizer.eot_token_id]
        else:
            self.pad_id = self.tokenizer.tokenizer.pad_token_id
            self.special_ids = special_ids(self.tokenizer.tokenizer)
        self.word_dim, *pooled = self._probe(**self.tokenize(["a"]))
        self.pooled_dim: int | None = pooled[0] if pooled else None

    def _create(self, weights: str | None) -> nn.Module:
        net = create(self.model_name, weights)
        del net.visual
        return net

    def _tower(self) -> Any:
        return getattr(self.half, "text", self.half)

    def _vocabulary(self) -> int:
        """Return the number of tokens the tower has embeddings for."""
        tower = self._tower()
        if isinstance(tower, HFTextEncoder):
            return int(tower.config.get_text_config().vocab_size)
        return int(tower.token_embedding.num_embeddings)

    def _body(self) -> nn.Module:
        return getattr(self.net, "text", self.net).transformer

    def _checkpoint_gradients(self) -> None:
        if hasattr(self.net, "text"):
            self.net.text.set_grad_checkpointing(True)
        else:
            self.net.transformer.grad_checkpointing = True

    def _unlock(self, blocks: int) -> None:
        tower = self._tower()
        if isinstance(tower, HFTextEncoder):  # open_clip does not know where a BERT has its layers
            tower.transformer.requires_grad_(False)
            lists = [m for m in tower.transformer.modules() if isinstance(m, nn.ModuleList)]
            for block in max(lists, key=len)[-blocks:]:
                block.requires_grad_(True)
        else:
            # open_clip counts the projection as the last layer
            projection = tower.text_projection is not None
            self.net.lock_text_tower(unlocked_layers=blocks + projection)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (T, L), padded to the longest text."""
        ids = self.tokenizer(list(texts), context_length=self.max_words)
        real = self._real(ids)
        length = int(real.any(0).nonzero().max()) + 1
        return {"input_ids": ids[:, :length], "attention_mask": real[:, :length]}

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return the number of [UNK] in texts, and of all tokens of words; open_clip's has none."""
        if self.own_tokenizer:
            return 0, 0
        tokenizer = self.tokenizer.tokenizer
        return count_unknown(tokenizer, tokenizer(list(texts), verbose=False)["input_ids"])

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return the number of texts that are longer than `max_words`."""
        return int(self._real(self.tokenizer(list(texts), self.max_words + 1)).all(1).sum())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Return the last tokens; padding is masked, start and end if so asked. Or embeddings."""
        if self.embedding is True:
            return TextFeatures(self.embed(input_ids).unsqueeze(1))
        with self.gradients():
            words = self._tokens(input_ids)[:, : input_ids.shape[1]]
        dropped = [] if self.keep_special_tokens else self.special_ids
        pooled = self.embed(input_ids) if self.embedding else None
        return TextFeatures(words, word_mask(input_ids, attention_mask, dropped), pooled)

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the texts' embeddings (T, D), equal to `encode_text` of the bare model."""
        with self.gradients():
            return self.half.encode_text(self._padded(input_ids))

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON; the tokenizer is the model's own."""
        options = {"max_words": self.max_words, "keep_special_tokens": self.keep_special_tokens}
        return self._fingerprint(
            **options, **({"embedding": self.embedding} if self.embedding else {})
        )

    def _tokens(self, ids: Tensor) -> Tensor:
        """Return the tokens (T, L, word_dim), normalised as before the tower's own pooling."""
        tower = self._tower()
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
        """Return (T, L) bool, True at tokens of the text, its start and end."""
        real = ids != self.pad_id
        if self.own_tokenizer:
            # its padding is the id of "!", too, so everything before the end is real
            return real.flip(1).cummax(1).values.flip(1)
        if self.pad_id in self.special_ids:  # the end is written as the first padding
            real[:, 1:] |= real[:, :-1].clone()
        return real
