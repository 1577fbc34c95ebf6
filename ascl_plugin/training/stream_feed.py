"""What the steps are fed from a stream: the lanes this process needs, and where all lanes stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from accelerate.utils import gather_object

from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.data.lanes import Lanes, Position
from ascl_plugin.shares import shares
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.batches import Loader, made_ahead


class GivenRows(torch.utils.data.Dataset):
    """Rows that are their own keys: read in the main process, decoded where batches are made."""

    def __getitem__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row


class StreamFeed:
    """The batches of a run that reads from `Lanes`; does what `Feed` does.

    Args:
        lanes: made for the run's batch size.
        collator: rows to batch; whatever it looks rows up in must have them all.
        options: of the run.
        accelerator: of the run.

    Attributes:
        batch_size, batches_per_epoch: as of `Feed`.
        positions: of the lanes that this process reads, behind the last batch it gave.

    Raises:
        ValueError: a batch that has no pair for each process.
    """

    def __init__(
        self, lanes: Lanes, collator: AsymmetryCollator, options: Options, accelerator: Any
    ) -> None:
        args = options.train
        self.lanes = lanes
        self.batch_size = args.batch_size
        if self.batch_size < max(2, accelerator.num_processes):
            raise ValueError(
                f"batch_size {args.batch_size} on {accelerator.num_processes} process(es): a batch "
                "needs at least 2 pairs, and one a process"
            )
        self.batches_per_epoch = args.steps_per_epoch * args.gradient_accumulation_steps
        self.loader = Loader(collator, options, accelerator.device)
        own = shares("split", self.batch_size, accelerator.device).own
        first, last = own.start // lanes.chunk, (own.stop - 1) // lanes.chunk
        self._part = slice(own.start - first * lanes.chunk, own.stop - first * lanes.chunk)
        self.positions = {lane: Position() for lane in range(first, last + 1)}
        self._reader: Iterator[tuple[list[dict[str, Any]], dict[int, Position]]] | None = None
        # positions and ids of batches that were read, not given yet; ids of those of a step
        self._ahead: deque[tuple[dict[int, Position], dict[int, str]]] = deque()
        self._names: deque[dict[int, str]] = deque(maxlen=args.gradient_accumulation_steps)

    def planned_texts(self, epochs: int) -> Iterator[str]:
        """None: texts of a stream are not known before they come."""
        return iter(())

    def batches(self, epoch: int, begin: int) -> Iterator[dict[str, Any]]:
        """This process's share of the next batches, as many as the epoch still has.

        Raises:
            RuntimeError: a data worker died.
            KeyError, ValueError: as `Lanes.chunks`.
        """
        left = self.batches_per_epoch - begin
        batches = self.loader.batches(epoch, GivenRows(), self._read(left))
        try:
            for batch in batches:
                self.positions, names = self._ahead.popleft()
                self._names.append(names)
                left -= 1
                yield batch
        finally:
            batches.close()
            if left:  # what was read ahead was not given: it is read again
                self._reader = None
                self._ahead.clear()

    def names(self, rows: list[int]) -> list[str]:
        """Ids of the images of rows that a step has seen."""
        known = {row: name for names in self._names for row, name in names.items()}
        return [known[row] for row in rows]

    def told(self) -> str:
        """What numbers of rows stand for, in a line."""
        return f"a stream of {len(self.lanes.shards)} shards"

    def state(self) -> list[list[int]]:
        """Where all lanes stand; every process must ask."""
        found: dict[int, Position] = {}
        for part in gather_object([self.positions]):
            found |= part
        return [list(found[lane]) for lane in range(self.lanes.count)]

    def load_state(self, state: Any) -> None:
        """Goes on where `state` was, on any number of processes."""
        self.positions = {lane: Position(*state[lane]) for lane in self.positions}

    def _read(self, batches: int) -> Iterator[list[dict[str, Any]]]:
        """The next batches, read by a thread while the ones before are at work."""
        if self._reader is None:
            self._reader = self._chunks()
        # the thread starts when data workers, which are forked, are there
        for rows, positions in made_ahead(islice(self._reader, batches)):
            self._ahead.append((positions, {row["row"]: row["image_id"] for row in rows}))
            yield rows

    def _chunks(self) -> Iterator[tuple[list[dict[str, Any]], dict[int, Position]]]:
        """This process's rows of each batch, and where its lanes stand behind it."""
        lanes = [self.lanes.chunks(*place) for place in self.positions.items()]
        for chunks in zip(*lanes, strict=True):
            rows = [row for chunk, _ in chunks for row in chunk]
            behind = zip(self.positions, (position for _, position in chunks), strict=True)
            yield rows[self._part], dict(behind)
