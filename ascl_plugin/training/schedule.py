"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from ascl_plugin.training.arguments import TrainArguments


def learning_rate(args: TrainArguments, step: int, total: int, steps_per_epoch: int) -> float:
    """Rate of step `step` (from 0) of `total`.

    "step": times `decay_factor` every `decay_every` epochs. "cosine": down to
    `final_learning_rate` at the end. Both rise over the first `warmup_steps`. The phase of
    `align_epochs` and the one after it each have a schedule of their own.
    """
    aligning = min(args.align_epochs * steps_per_epoch, total)
    if step < aligning:
        total = aligning
    else:
        step, total = step - aligning, total - aligning
    if step < args.warmup_steps:
        return args.learning_rate * (step + 1) / args.warmup_steps
    if args.schedule == "constant":
        return args.learning_rate
    if args.schedule == "step":
        return args.learning_rate * args.decay_factor ** (
            step // steps_per_epoch // args.decay_every
        )
    done = (step - args.warmup_steps) / max(1, total - args.warmup_steps)
    low = args.final_learning_rate
    return low + (args.learning_rate - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2
