"""Running means of batch norm: each process has its own, and one model is judged and saved."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from ascl_plugin.losses.distributed import world_size


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's floating-point buffers, which are those that are saved.

    DistributedDataParallel does so at the beginning of a step, so after a step they differ.
    """
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.broadcast(buffer, 0)
