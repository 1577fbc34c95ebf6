"""Steps whose loss or gradient is not finite: the run ends there, or goes on without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

NAMED = 8  # images that a message names


class BadBatches:
    """Judges each step, alike on every process, and keeps the count.

    Args:
        accelerator: of the run.
        model: the bare one. Its buffers (running means of batch norm) see a batch before anybody
            can judge it: with a limit they are remembered at each step's begin, and put back.
        names: ids of the images of this process's rows.
        limit: steps that may be left out, in all of the run; 0: the first bad one ends it.
        log: is handed a line to keep, `{"step": number, "not_finite": what, "images": ids}`.

    Attributes:
        steps: numbers of the steps that were left out, counted from 1.
    """

    def __init__(
        self,
        accelerator: Any,
        model: nn.Module,
        names: Callable[[list[int]], list[str]],
        limit: int,
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.names = names
        self.limit = limit
        self.log = log
        self.steps: list[int] = []
        self._buffers: list[Tensor] = []

    def begin(self) -> None:
        """A step begins."""
        if self.limit:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def fine(self, finite: bool, what: str, step: int, rows: list[int]) -> bool:
        """Whether the step may go on: it is finite on every process. Every process must ask.

        Args:
            finite: whether it is on this one.
            what: that is not finite on this one, for people.
            step: its number, from 1.
            rows: of this process that the step has seen.

        Returns:
            False: the step is left out, buffers are as they were, and `steps` has its number.

        Raises:
            FloatingPointError: no more steps may be left out.
        """
        if not anywhere(self.accelerator, not finite):
            return True
        what = "a loss or gradient of another process is not finite" if finite else what
        ids = gather_object(self.names(rows))  # of all processes
        self.log({"step": step, "not_finite": what, "images": ids})
        names = ", ".join(ids[:NAMED]) + (", ... (all in log.jsonl)" if ids[NAMED:] else "")
        if len(self.steps) >= self.limit:
            left_out = f" {len(self.steps)} were left out before." if self.steps else ""
            raise FloatingPointError(
                f"{what} at step {step}; the batch held images {names}.{left_out} The last "
                "checkpoint is untouched; a lower learning_rate, max_grad_norm or a higher "
                "temperature may help, and --skip_bad_batches N goes on without such batches"
            )
        self.steps.append(step)
        for buffer, before in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        return False


def finite_gradients(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether every gradient and its square are finite; of shards, this process's.

    The square, because Adam keeps it: once infinite, it would hold a weight still for good.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
    # a shard may be empty: fewer rows than processes
    largest = torch.nn.utils.get_total_norm([g for g in local if g.numel()], float("inf"))
    return bool(largest < torch.finfo(torch.float32).max ** 0.5)


def anywhere(accelerator: Any, flag: bool) -> bool:
    """Whether the flag is up on any process; all of them get the same answer."""
    if accelerator.num_processes == 1:
        return flag
    raised = torch.tensor(int(flag), device=accelerator.device)
    return bool(accelerator.reduce(raised, "sum"))
