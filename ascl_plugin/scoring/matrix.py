"""Scores of all images against all texts: a matrix in memory, one on disk, or the best of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, check_features
from ascl_plugin.interfaces import HasFusion, Scorer
from ascl_plugin.scoring.blocks import PreparedScorer, Wanted, walk, with_bar
from ascl_plugin.scoring.matrix_file import Inputs, begin, fingerprint, finish, missing, open_matrix
from ascl_plugin.scoring.topk import TopK, TopKLists
from ascl_plugin.scoring.topk_file import TopKFile, read_topk
from ascl_plugin.shares import Shares, is_main, shares

__all__ = ["TopK", "score_matrix"]


@overload
def score_matrix(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: None = None,
    path: str | Path | None = None,
    memory: int = 2**30,
    processes: str = "one",
) -> Tensor: ...


@overload
def score_matrix(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: int,
    path: str | Path | None = None,
    memory: int = 2**30,
    processes: str = "one",
) -> TopK: ...


@torch.no_grad()
def score_matrix(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: int | None = None,
    path: str | Path | None = None,
    memory: int = 2**30,
    processes: str = "one",
) -> Tensor | TopK:
    """Return the scores S (I, T), fp32 on the CPU, computed within a memory budget.

    If the scorer has `prepare_images` and `prepare_texts`, each item is prepared once a block (see
    `blocks`). Features may be on another device than the scorer, or mapped from a file: blocks are
    moved one at a time. The scorer stays in its mode, train or eval.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features.
        tile: images and texts given to the scorer at once; None: as many as `memory` has room for.
        progress: show a bar on rank 0.
        topk: keep the best k of each image and each text only, and return `TopK`: the same as
            sorting the matrix, without the matrix.
        path: .npy file to score into. Scores are written to `PATH.part` as they come, which is
            renamed in the end. Called again with the same inputs, an interrupted run continues,
            and a finished one is read. With `topk`, an .npz file of the lists, saved once a minute;
            an interrupted run then needs the same tile and memory, too.
        memory: bytes that scoring may take beside its inputs and its result.
        processes: "one": score here, whatever other processes do. Collective: "split", each rank
            scores a share of the same images; "own", each rank passes different images and the
            same texts. All ranks return the scores of all images, in order of rank. All ranks must
            see the file at `path`.

    Returns:
        (I, T); with a `path`, a copy-on-write mapping of the file. `TopK` if `topk` is given.

    Raises:
        TypeError: no features, or no scorer.
        ValueError: a tile that is not two positive numbers, k or memory below 1, an unknown word,
            arguments that exclude each other; a file of other inputs; NaN with `topk`; errors of
            the scorer.
        ImportError: a bar without tqdm.
    """
    check_features(images, texts)
    _check(tile, topk, memory, path, processes)
    scorer = PreparedScorer(model, images)
    rows = shares(processes, len(images), scorer.device)
    file = None if path is None else Path(path)
    if file is not None and topk is None:
        _begin(file, rows, lambda: fingerprint(scorer.scorer, images, texts))
        if file.exists():
            return open_matrix(file)
    if processes == "split":
        images = images[rows.own]

    target: Matrix | TopKLists
    if topk is None:
        target = Matrix(rows, len(texts), file)
    elif file is None:
        target = TopKLists(rows, len(texts), topk)
    else:
        inputs = fingerprint(scorer.scorer, images, texts)
        target = TopKFile(rows, len(texts), topk, file, inputs, (tile, memory))
        if file.exists():
            return read_topk(file)
    blocks = walk(scorer, images, texts, tile, memory, target.wanted)
    if progress and is_main():
        blocks = with_bar(blocks, len(images) * len(texts), target.done)
    for block, columns, scores in blocks:
        target.put(block, columns, scores)
    return target.result()


class Matrix:
    """The matrix being filled, with the rows of all ranks, in memory or in a file."""

    def __init__(self, rows: Shares, texts: int, path: Path | None) -> None:
        self.rows = rows
        self.path = path
        self.values = torch.empty(rows.total, texts) if path is None else open_matrix(path)
        self.own = self.values[rows.own]
        self.wanted: Wanted | None = None if path is None else self._lacks
        self.done = 0 if path is None else self.own.numel() - missing(self.own)

    def _lacks(self, block: slice, columns: Tensor) -> bool:
        return bool(self.own[block][:, columns].isnan().any())

    def put(self, block: slice, columns: Tensor, scores: Tensor) -> None:
        """Add the scores of a block; its rows count from this rank's first."""
        self.own[block].index_copy_(1, columns, scores)

    def result(self) -> Tensor:
        """Return the whole matrix on every rank. Collective."""
        if self.path is None:
            self.rows.exchange(self.values)
            return self.values
        self.rows.wait()
        if self.rows.rank == 0:
            finish(self.path)
        self.rows.wait()
        return open_matrix(self.path)


def _begin(path: Path, rows: Shares, inputs: Callable[[], Inputs]) -> None:
    """Open the file on rank 0 and raise its error on all ranks."""
    wrong: Exception | None = None
    if rows.rank == 0:
        try:
            begin(path, inputs())
        except (ValueError, OSError) as error:
            wrong = error
    message = rows.agree(None if wrong is None else str(wrong))
    if message is not None:
        raise wrong or ValueError(message)


def _check(
    tile: object, topk: int | None, memory: int, path: str | Path | None, processes: str
) -> None:
    if tile is not None and not (
        isinstance(tile, tuple | list) and len(tile) == 2 and min(tile) >= 1
    ):
        raise ValueError(f"tile must be (images, texts) of at least 1 each, got {tile}")
    if topk is not None and topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    if memory < 1:
        raise ValueError(f"memory must be a number of bytes, got {memory}")
    if path is not None and topk is not None and processes != "one":
        raise ValueError('path goes with topk in one process alone, processes="one"')
    if path is not None and processes == "own":
        raise ValueError('path goes with processes="one" or "split", not with "own"')
