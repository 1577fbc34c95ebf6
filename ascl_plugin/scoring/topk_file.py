"""Best lists on disk that an interrupted run continues: the lists so far, and the blocks in them.

``best.npz`` holds the four arrays of `TopK`. Until then ``best.npz.part`` is replaced once a minute
by the lists so far and the blocks that they hold; ``best.npz.json`` identifies the inputs.
"""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.disk import write_text, written
from ascl_plugin.scoring.blocks import Wanted
from ascl_plugin.scoring.matrix_file import Inputs, beside, check_record
from ascl_plugin.scoring.topk import TopK, TopKLists
from ascl_plugin.shares import Shares

SAVE_EVERY = 60  # seconds of work that an interruption may cost
ARRAYS = tuple(field.name for field in fields(TopK))


class TopKFile(TopKLists):
    """Running lists of one process that are saved as they grow.

    Args:
        rows: of this process alone.
        texts: T.
        k: length of the lists.
        path: .npz file of the finished lists.
        inputs: their `fingerprint`.
        blocks: what decides the blocks, tile and memory: an interrupted run keeps them.

    Raises:
        ValueError: no .npz; files of other inputs, blocks or lengths; damaged files.
    """

    def __init__(
        self, rows: Shares, texts: int, k: int, path: Path, inputs: Inputs, blocks: object
    ) -> None:
        super().__init__(rows, texts, k)
        if path.suffix != ".npz":
            raise ValueError(f"{path}: lists are written as .npz")
        self.path = path
        self.part, record = beside(path)
        self.seen: dict[int, Tensor] = {}  # first row of a block -> (T,), scored with these rows
        self.scored = torch.zeros(texts, dtype=torch.int64)  # rows scored with each text
        self.wanted: Wanted | None = self._lacks
        of_lists = {**inputs, "topk": k}
        if path.exists():
            check_record(path, record, of_lists)
        elif self.part.exists():
            check_record(self.part, record, of_lists | {"blocks": repr(blocks)})
            self._read()
        else:
            write_text(record, json.dumps(of_lists | {"blocks": repr(blocks)}, indent=2) + "\n")
        self.done = int(self.scored.sum())
        self._saved = time.monotonic()

    def _lacks(self, block: slice, columns: Tensor) -> bool:
        if block.stop - block.start == self.rows.total:  # whole columns
            return bool((self.scored[columns] < self.rows.total).any())
        return block.start not in self.seen or not bool(self.seen[block.start][columns].all())

    def put(self, block: slice, columns: Tensor, scores: Tensor) -> None:
        """Add the scores of a block, and save the lists if it is time."""
        super().put(block, columns, scores)
        seen = self.seen.setdefault(block.start, torch.zeros(len(self.scored), dtype=torch.bool))
        seen[columns] = True
        self.scored[columns] += block.stop - block.start
        if time.monotonic() - self._saved >= SAVE_EVERY:
            more = {"starts": torch.tensor(list(self.seen)), "scored": self.scored}
            more["blocks"] = torch.stack(list(self.seen.values()))
            lists = (self.i2t.ids, self.i2t.scores, self.t2i.ids, self.t2i.scores)
            state = dict(zip(ARRAYS, lists, strict=True))
            _write(self.part, state | more)
            self._saved = time.monotonic()

    def _read(self) -> None:
        found = _load(self.part, (*ARRAYS, "blocks", "scored", "starts"))
        self.i2t.ids, self.i2t.scores, self.t2i.ids, self.t2i.scores = (found[n] for n in ARRAYS)
        self.scored = found["scored"]
        self.seen = dict(zip(found["starts"].tolist(), found["blocks"], strict=True))

    def result(self) -> TopK:
        """Return the lists, written to the file."""
        found = super().result()
        _write(self.path, {name: getattr(found, name) for name in ARRAYS})
        self.part.unlink(missing_ok=True)
        return found


def read_topk(path: Path) -> TopK:
    """Read finished lists.

    Raises:
        ValueError: a damaged file.
    """
    return TopK(**_load(path, ARRAYS))


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: values.numpy() for name, values in tensors.items()}
    with written(path) as aside, open(aside, "wb") as file:
        np.savez(file, **arrays)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in names}
    except Exception as error:  # numpy has many for a broken archive
        raise ValueError(f"{path} is damaged; delete it ({error})") from error
