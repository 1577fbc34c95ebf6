"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from ascl_plugin.training.arguments import TrainArguments


def learning_rate(args: TrainArguments, step: int, total: int, steps_per_epoch: int) -> float:
    """Rate of step `step` (from 0) of `total`.

    "step": times `decay_factor` every `decay_every` epochs. "cosine": down to
    `final_learning_rate` at the end. The rate rises over the first `warmup_steps` of the run. The
    phase of `align_epochs` has a schedule of its own, from `align_learning_rate`.
    """
    aligning = min(args.align_epochs * steps_per_epoch, total)
    peak, warmup = args.learning_rate, args.warmup_steps
    if step < aligning:
        peak, total = args.align_learning_rate or peak, aligning
    elif aligning:
        step, total, warmup = step - aligning, total - aligning, 0
    if step < warmup:
        return peak * (step + 1) / warmup
    if args.schedule == "constant":
        return peak
    if args.schedule == "step":
        return peak * args.decay_factor ** (step // steps_per_epoch // args.decay_every)
    done = (step - warmup) / max(1, total - warmup)
    low = args.final_learning_rate
    return low + (peak - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2
