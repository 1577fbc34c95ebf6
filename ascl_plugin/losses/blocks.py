"""The four score blocks that losses take: their shapes, and the balance of their two halves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Blocks = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


def check_blocks(blocks: Blocks, square: bool = True, negative_mode: str = "sum") -> None:
    """Raise ValueError if the shape of a block does not fit.

    Args:
        blocks: `sim`, `negative_sim`, `positive_sim`, `positive_negative_sim`.
        square: True if pairs are on the diagonal; else sim may be (I, T).
        negative_mode: as `asymmetry_loss`.
    """
    sim, negative, positive, positive_negative = blocks
    if sim.ndim != 2 or not sim.numel() or (square and sim.shape[0] != sim.shape[1]):
        wanted = "(N, N) with the pairs on its diagonal" if square else "(I, T)"
        hint = "; other shapes need targets" if square and sim.ndim == 2 and sim.numel() else ""
        raise ValueError(f"sim must be {wanted}, got {tuple(sim.shape)}{hint}")
    if positive is not None and positive.shape != sim.shape:
        raise ValueError(
            f"positive_sim must have sim's shape {tuple(sim.shape)}, got {tuple(positive.shape)}"
        )
    images, texts = sim.shape
    for name, block in (("negative_sim", negative), ("positive_negative_sim", positive_negative)):
        if block is None:
            continue
        if negative_mode == "sum":
            fits = block.ndim == 2 and len(block) == images and block.numel()
            wanted = f"({images}, M) with M >= 1"
        else:
            own = block.ndim in (1, 2) and len(block) == texts and block.numel()
            fits = own or block.shape == sim.shape
            wanted = (
                f"({texts},) or ({texts}, M), scores of the texts' own negatives, or of sim's "
                f"shape {(images, texts)}, in negative_mode {negative_mode!r}"
            )
        if not fits:
            raise ValueError(f"{name} must be {wanted}, got {tuple(block.shape)}")
    if positive is None and positive_negative is not None:
        raise ValueError("positive_negative_sim was given without positive_sim")


def balanced(
    half: Callable[[Tensor, Tensor | None], Tensor], balance: float, blocks: Blocks
) -> Tensor:
    """Return balance * half of the captions + (1 - balance) * half of the generated positives."""
    sim, negative, positive, positive_negative = blocks
    # no autocast: log_softmax would be widened anyway, the divisions before it would not
    with torch.autocast(sim.device.type, enabled=False):
        loss = half(sim, negative)
        if positive is None:
            return loss
        return balance * loss + (1 - balance) * half(positive, positive_negative)
