"""The loss in the `Trainer` of transformers, for CLIP, SigLIP and their kin."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ascl_plugin.adapters.losses.embeddings import EmbeddingLoss, text_blocks, total
from ascl_plugin.adapters.missing import needs
from ascl_plugin.distributed import gather

with needs("transformers", "recipes"):
    from transformers import Trainer


class AsymmetryTrainer(Trainer):
    """`Trainer` whose loss is `AsymmetryLoss`, over the pairs of all processes.

    Generated texts pass the model in one call with the captions. Under gradient accumulation a
    batch counts by its share of the step's pairs; `loss` of the log is their mean, and each term is
    logged beside it. Evaluation has the same loss.

    Args:
        *args, **options: as `Trainer`. `data_collator` is an `AsymmetryCollator`, or anything that
            returns its keys; `remove_unused_columns` of the arguments is switched off for it.
        loss: loss of the four score blocks, or an `EmbeddingLoss`, which also says which noise
            seeds of the collator stand for. None: half of `AsymmetryLoss`, as CLIP's own loss
            (``reduction="clip"``), at the model's learned `logit_scale`.

    Relations:
        The model returns `image_embeds` and `text_embeds`, as `CLIPModel` and `SiglipModel`
        do. Its `logit_scale` and `logit_bias` stay as they are if `loss` is given.

    Examples:
        >>> trainer = AsymmetryTrainer(  # doctest: +SKIP
        ...     model, arguments, data_collator=collator, train_dataset=dataset
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(self, *args: Any, loss: nn.Module | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.args.remove_unused_columns = False  # the collator reads columns the model does not
        self.can_return_loss = self.model_accepts_loss_kwargs = True
        self.accelerator.gradient_accumulation_steps = 1  # transformers 5.3 lets it divide again
        self.own_temperature = loss is None
        self.embedding_loss = loss if isinstance(loss, EmbeddingLoss) else EmbeddingLoss(loss)
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._steps = 0

    def get_batch_samples(self, *args: Any) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the batches of a step, and the number of their pairs on all processes."""
        batches = super().get_batch_samples(*args)[0]
        self._steps += 1
        pairs = torch.tensor([sum(map(_pairs, batches))], device=self.args.device)
        return batches, gather(pairs).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, times its share of the step's pairs if they are given."""
        blocks = text_blocks(inputs)
        whole, generated = blocks.pop(""), list(blocks.values())
        for key in generated[0] if generated else ():
            whole[key] = self._joined(key, [whole, *generated])
        outputs = model(**whole)
        images, texts = outputs["image_embeds"], outputs["text_embeds"]
        by_prefix = dict(zip(("", *blocks), texts.chunk(1 + len(blocks)), strict=True))
        scale = getattr(self.model, "logit_scale", None)
        learned = None if scale is None or not self.own_temperature else 1 / scale.exp()
        terms = self.embedding_loss.of_batch(images, by_prefix, inputs, learned)
        if num_items_in_batch is not None:
            share = gather(torch.tensor([_pairs(inputs)], device=images.device)).sum()
            terms = {name: term * (share / num_items_in_batch) for name, term in terms.items()}
        loss = total(terms)
        if model.training:
            for name, term in terms.items():
                self._sums[name] = self._sums[name] + term.detach()
        for unused in (scale, getattr(self.model, "logit_bias", None)):
            if unused is not None:  # a parameter without gradient stops distributed training
                loss = loss + 0 * unused.sum()
        if not return_outputs:
            return loss
        return loss, {"image_embeds": images, "text_embeds": by_prefix[""]}

    def log(self, logs: dict[str, float], *args: Any) -> None:
        """Log, and beside `loss` its terms; all are means over the steps since the last."""
        if "loss" in logs:
            logs |= {name: float(total) / self._steps for name, total in self._sums.items()}
            self._sums.clear()
            self._steps = 0
        super().log(logs, *args)

    def _joined(self, key: str, blocks: list[dict[str, Tensor]]) -> Tensor:
        """Return a token tensor of all blocks, padded to the longest."""
        longest = max(block[key].shape[1] for block in blocks)
        if "attention_mask" not in blocks[0] and any(b[key].shape[1] < longest for b in blocks):
            raise ValueError(
                f"{key} of captions and generated texts differ in length, and no attention_mask "
                "tells padding: tokenize with padding='max_length', as SigLIP was trained"
            )
        filler = 0
        if key == "input_ids":
            config = cast(Any, self.model).config
            filler = config.get_text_config().pad_token_id or 0
        return torch.cat(
            [pad(b[key], (0, longest - b[key].shape[1]), value=filler) for b in blocks]
        )


def _pairs(batch: dict[str, Tensor]) -> int:
    return len(batch["input_ids"])
