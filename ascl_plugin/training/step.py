"""One optimizer step: losses and gradients of its batches, then a move of the weights, or none."""

from __future__ import annotations

import math

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ascl_plugin.retrieval.balanced_scores import balanced_loss
from ascl_plugin.retrieval.hard_pairs import HardPairs
from ascl_plugin.retrieval.raw_features import to_inputs
from ascl_plugin.training.batches import Batch
from ascl_plugin.training.gradient_cache import CachedEncoding, average_gradients
from ascl_plugin.training.nonfinite import BadBatches
from ascl_plugin.training.optimizer import set_rate
from ascl_plugin.training.resolve import Resolved
from ascl_plugin.training.sharding import Engine


class Step:
    """An optimizer step of `gradient_accumulation_steps` batches.

    Args:
        number: steps done before.

    Attributes:
        losses: loss of each batch so far.
        finite: False once a loss or gradient was not: the rest of the step is skipped.
    """

    def __init__(
        self,
        engine: Engine,
        loss: nn.Module,
        bad_batches: BadBatches,
        options: Resolved,
        number: int,
        rate: float,
    ) -> None:
        self.engine = engine
        self.accelerator: Accelerator = engine.accelerator
        self.loss = loss
        self.bad_batches = bad_batches
        self.options = options
        self.number = number
        self.rate = rate
        self.losses: list[float] = []
        self.rows: list[int] = []  # of this rank
        self.finite = True
        # dropout and the like depend on the step, not on what ran before
        seed, rank = options.train.seed, self.accelerator.process_index
        torch.manual_seed(step_seed(seed, number, rank))
        set_rate(engine.optimizer, rate)
        bad_batches.begin()

    def add(self, batch: Batch, align: bool) -> None:
        """Take this rank's share of a batch; after the last one of the step, the weights move."""
        with self.accelerator.accumulate(self.engine.model):  # which sends with the last batch
            if self.finite:
                self.rows += batch["row"].tolist()
                self.finite = self._backward(batch, align) and self._update()
            self.engine.optimizer.zero_grad()

    def _backward(self, batch: Batch, align: bool) -> bool:
        """Add a batch's gradients; return False to skip the step."""
        inputs = to_inputs(batch, self.accelerator.device)
        objective = self.options.loss
        hard_pairs = None
        if objective.hard_pairs:
            hard_pairs = HardPairs(
                objective.hard_pairs, objective.other_pairs, objective.hard_every
            )
        scoring = objective.negatives, objective.noise_strength, align
        autocast, chunk = self.accelerator.autocast, self.options.train.cached_chunk
        model = self.engine.raw_model
        cached = CachedEncoding(model, inputs, chunk, autocast) if chunk else None
        with autocast():
            if cached is None:
                blocks = self.engine.model(inputs, *scoring, hard_pairs)
            else:
                blocks = model.score_blocks(cached.images, cached.texts, inputs, *scoring)
                blocks |= model.score_balanced(inputs, align)
            hard, balanced = blocks.pop("hard_sim", None), blocks.pop("balanced_sim", None)
            loss = self.loss(**blocks)
            if hard is not None:
                loss = loss + objective.hard_weight * self.loss(hard)
            if balanced is not None:
                loss = loss + objective.balanced_weight * balanced_loss(
                    balanced, objective.balanced_temperature, objective.balanced_margin,
                    objective.balanced_focal, objective.balanced_sides,
                )  # fmt: skip
        value = loss.item()
        self.losses.append(value)
        if not self._all_finite(math.isfinite(value), f"loss is {value}"):
            return False
        self.accelerator.backward(loss)
        if cached is not None:
            cached.carry_on()
        return True

    def _update(self) -> bool:
        """Step the optimizer if this batch is the step's last; return False to skip the step."""
        if self.accelerator.sync_gradients:
            if self.options.train.cached_chunk:
                average_gradients(self.engine.raw_model)
            if not self._all_finite(self.engine.gradients_finite(), "a gradient is not finite"):
                return False
        self.engine.optimizer_step(self.options.train.max_grad_norm)
        return True

    def _all_finite(self, finite: bool, what: str) -> bool:
        return self.bad_batches.all_finite(finite, what, self.number + 1, self.rows)


def step_seed(seed: int, number: int, rank: int) -> int:
    """Return the seed of a step's random draws on a rank, the same in every Python and numpy."""
    return int(np.random.SeedSequence([seed, number, rank]).generate_state(1, np.uint64)[0])
