"""Batches from a stream: the lanes this rank needs, and the positions of all lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.data.lanes import Lanes, Position
from ascl_plugin.interfaces import Row
from ascl_plugin.shares import shares
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.batches import Batch, Loader, made_ahead


class GivenRows(torch.utils.data.Dataset):
    """Rows that are their own keys: read in the main process, decoded by data workers."""

    def __getitem__(self, row: Row) -> Row:
        return row


class StreamFeed:
    """A feed that reads from `Lanes`; see `Feed`.

    Args:
        collator: collator of rows; it must not look rows up in a table.

    Attributes:
        positions: positions of the lanes that this rank reads, behind the last batch it gave.

    Raises:
        ValueError: a batch has fewer pairs than there are ranks.
    """

    def __init__(
        self, lanes: Lanes, collator: AsymmetryCollator, options: Options, accelerator: Accelerator
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
        self._reader: Iterator[tuple[list[Row], dict[int, Position]]] | None = None
        # positions and ids of batches read but not given yet; ids of the batches of a step
        self._ahead: deque[tuple[dict[int, Position], dict[int, str]]] = deque()
        self._names: deque[dict[int, str]] = deque(maxlen=args.gradient_accumulation_steps)

    def planned_texts(self, epochs: int) -> Iterator[str]:
        """Yield nothing: texts of a stream are not known in advance."""
        return iter(())

    def batches(self, epoch: int, begin: int) -> Iterator[Batch]:
        """See `Feed`; the stream goes on where it is, `begin` only counts."""
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
            if left:  # batches read ahead were not given: they are read again
                self._reader = None
                self._ahead.clear()

    def names(self, rows: list[int]) -> list[str]:
        """See `Feed`."""
        known = {row: name for names in self._names for row, name in names.items()}
        return [known[row] for row in rows]

    def describe(self) -> str:
        """See `Feed`."""
        return f"a stream of {len(self.lanes.shards)} shards"

    def state(self) -> list[list[int]]:
        """Return the positions of all lanes. Collective."""
        found: dict[int, Position] = {}
        for part in gather_object([self.positions]):
            found |= part
        return [list(found[lane]) for lane in range(self.lanes.count)]

    def load_state(self, state: list[list[int]] | None) -> None:
        """See `Feed`."""
        if state is not None:
            self.positions = {lane: Position(*state[lane]) for lane in self.positions}

    def _read(self, batches: int) -> Iterator[list[Row]]:
        """Yield the next batches, read by a thread while those before are at work."""
        if self._reader is None:
            self._reader = self._chunks()
        # the thread starts after the data workers, which are forked
        for rows, positions in made_ahead(islice(self._reader, batches)):
            self._ahead.append((positions, {row["row"]: row["image_id"] for row in rows}))
            yield rows

    def _chunks(self) -> Iterator[tuple[list[Row], dict[int, Position]]]:
        """Yield this rank's rows of each batch, and the positions of its lanes behind it."""
        lanes = [self.lanes.chunks(*place) for place in self.positions.items()]
        for chunks in zip(*lanes, strict=True):
            rows = [row for chunk, _ in chunks for row in chunk]
            behind = zip(self.positions, (position for _, position in chunks), strict=True)
            yield rows[self._part], dict(behind)
