"""Gradient caching: a batch is encoded in parts, twice, with the gradients of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ascl_plugin.distributed import world_size
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.retrieval.model import RetrievalModel


class CachedEncoding:
    """Features of a batch without their graph, and the backward pass through a second encoding.

    Gradient caching (Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
    Limited Setup") for scores of all pairs. First pass: `size` images and their texts at a time are
    encoded, and only projected features are kept. The caller scores those and takes the loss
    backward, to the scorer's weights and to the features. Second pass, `carry_on`: each part is
    encoded again, now with a graph, which takes the features' gradients on to the encoders'
    weights. Dropout is the same in both passes, by one seed for each part.

    The gradients are those of the whole batch at once where an item's features depend on nothing
    else in the batch: batch norm in training mode sees parts, and sees them twice.

    Args:
        model: bare model; over several ranks only `average_gradients` averages.
        batch: this rank's batch on the model's device; every tensor has the N pairs first.
        size: pairs of a part, at least 1.
        autocast: function that returns the context of a pass over a part.

    Attributes:
        images, texts: as `model.encode(batch)` returns them; leaves that require gradients.
    """

    def __init__(
        self,
        model: RetrievalModel,
        batch: dict[str, Tensor],
        size: int,
        autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.model = model
        self.size = size
        self.autocast = autocast
        pairs = len(next(iter(batch.values())))
        self.parts = [
            {k: v[at : at + size] for k, v in batch.items()} for at in range(0, pairs, size)
        ]
        self.seeds = torch.randint(2**62, (len(self.parts),)).tolist()
        with torch.no_grad():
            images, texts = zip(*map(self._encode, range(len(self.parts))), strict=True)
        whole = concatenate(images)
        self.images = ImageFeatures(whole.regions.requires_grad_(), whole.mask, _leaf(whole.pooled))
        self.texts = {}
        for name in texts[0]:
            text = concatenate([part[name] for part in texts])
            leaves = text.words.requires_grad_(), text.mask, _leaf(text.pooled)
            self.texts[name] = TextFeatures(*leaves)

    def carry_on(self) -> None:
        """Take the features' gradients on to the weights, after the loss went backward."""
        leaves = _values(self.images, self.texts)
        for number in range(len(self.parts)):
            first = number * self.size
            outputs, gradients = [], []
            for output, leaf in zip(_values(*self._encode(number)), leaves, strict=True):
                if leaf.grad is not None and output.requires_grad:
                    outputs.append(output)
                    # less the padding that other parts brought
                    gradients.append(leaf.grad[first : first + len(output), : output.shape[1]])
            torch.autograd.backward(outputs, gradients)

    def _encode(self, number: int) -> tuple[ImageFeatures, dict[str, TextFeatures]]:
        device = next(self.model.parameters()).device  # not all of a batch is moved there
        with torch.random.fork_rng([device] if device.type == "cuda" else []), self.autocast():
            torch.manual_seed(self.seeds[number])
            return self.model.encode(self.parts[number])


def average_gradients(model: nn.Module) -> None:
    """Average gradients over ranks, as DistributedDataParallel does. Collective."""
    if world_size() == 1:
        return
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def _leaf(pooled: Tensor | None) -> Tensor | None:
    return None if pooled is None else pooled.requires_grad_()


def _values(images: ImageFeatures, texts: dict[str, TextFeatures]) -> list[Tensor]:
    found = [images.regions, images.pooled]
    for text in texts.values():
        found += [text.words, text.pooled]
    return [x for x in found if x is not None]
