"""Optimizer and learning rate of a run; encoders may have a rate of their own."""

from __future__ import annotations

import math

import torch
from torch import nn

from ascl_plugin.training.arguments import TrainArguments


def make_optimizer(model: nn.Module, args: TrainArguments) -> torch.optim.Optimizer:
    """Return Adam or AdamW over the parameters that train.

    With an `encoder_learning_rate`, parameters of the model's `image_encoder` and `text_encoder`
    are a group of their own.

    Raises:
        ValueError: an `encoder_learning_rate` with frozen encoders, or without a `learning_rate`.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args.optimizer]
    options = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not args.encoder_learning_rate:
        return kind(trained.values(), **options)
    if args.learning_rate <= 0:
        raise ValueError(
            f"encoder_learning_rate {args.encoder_learning_rate} decays like learning_rate, which "
            f"must be above 0, got {args.learning_rate}"
        )
    prefixes = ("image_encoder.", "text_encoder.")
    encoders = [p for name, p in trained.items() if name.startswith(prefixes)]
    heads = [p for name, p in trained.items() if not name.startswith(prefixes)]
    if not encoders:
        raise ValueError(
            f"encoder_learning_rate is {args.encoder_learning_rate}, but both encoders are frozen; "
            "an encoder trains with --image_encoder.tune full, or --text_encoder.tune full"
        )
    share = args.encoder_learning_rate / args.learning_rate
    return kind([{"params": heads}, {"params": encoders, "share": share}], **options)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, or its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def learning_rate(args: TrainArguments, step: int, total: int, steps_per_epoch: int) -> float:
    """Return the learning rate of step `step` (from 0) of `total`.

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
