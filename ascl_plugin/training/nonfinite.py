"""Steps whose loss or gradient is not finite: the run ends, or skips them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

NAMED = 8  # images that a message names


class BadBatches:
    """A judge of each step, with the same verdict on all ranks, that counts what it skips.

    Args:
        model: bare model. Its buffers (running means of batch norm) have seen a batch before it is
            judged: with a limit they are remembered when a step begins, and restored.
        names: function from this rank's rows to the ids of their images.
        limit: maximum number of skipped steps of the run; with 0 the first bad one ends it.
        log: function that is given a line to keep, `{"step", "not_finite", "images"}`.

    Attributes:
        steps: numbers of the skipped steps, from 1.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        names: Callable[[list[int]], list[str]],
        limit: int,
        log: Callable[[dict[str, object]], None],
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.names = names
        self.limit = limit
        self.log = log
        self.steps: list[int] = []
        self._buffers: list[Tensor] = []

    def begin(self) -> None:
        """Remember the buffers, at the beginning of a step."""
        if self.limit:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def all_finite(self, finite: bool, what: str, step: int, rows: list[int]) -> bool:
        """Return True if a value is finite on all ranks. Collective: call on every rank.

        Args:
            finite: True if the value is finite on this rank.
            what: description of the value, for the message.
            step: number of the step, from 1.
            rows: rows of this rank that the step has seen.

        Returns:
            False if the step is to be skipped: buffers are restored, and `steps` has its number.

        Raises:
            FloatingPointError: the limit is reached.
        """
        if not on_any_rank(self.accelerator, not finite):
            return True
        what = "a loss or gradient of another process is not finite" if finite else what
        ids = gather_object(self.names(rows))  # of all ranks
        self.log({"step": step, "not_finite": what, "images": ids})
        names = ", ".join(ids[:NAMED]) + (", ... (all in log.jsonl)" if ids[NAMED:] else "")
        if len(self.steps) >= self.limit:
            skipped = f" {len(self.steps)} steps were skipped before." if self.steps else ""
            raise FloatingPointError(
                f"{what} at step {step}; the batch held images {names}.{skipped} The last "
                "checkpoint is untouched; a lower learning_rate, max_grad_norm or a higher "
                "temperature may help, and --skip_bad_batches N goes on without such batches"
            )
        self.steps.append(step)
        for buffer, before in zip(self.model.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        return False


def finite_gradients(parameters: Iterable[nn.Parameter]) -> bool:
    """Return True if every gradient and its square are finite; of shards, this rank's.

    The square, because Adam keeps it: once infinite, it would hold a weight still for good.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
    # a shard may be empty: fewer rows than ranks
    largest = torch.nn.utils.get_total_norm([g for g in local if g.numel()], float("inf"))
    return bool(largest < torch.finfo(torch.float32).max ** 0.5)


def on_any_rank(accelerator: Accelerator, flag: bool) -> bool:
    """Return True if the flag is True on any rank. Collective."""
    if accelerator.num_processes == 1:
        return flag
    raised = torch.tensor(int(flag), device=accelerator.device)
    return bool(accelerator.reduce(raised, "sum"))
