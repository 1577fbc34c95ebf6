"""All images against all texts: a matrix in memory, a matrix on disk, or the best of each alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.scoring.blocks import Scorer, device_of, walk, with_bar
from ascl_plugin.scoring.matrix_file import begin, fingerprint, finish, missing, open_matrix
from ascl_plugin.scoring.paired_protocol import LocalScore, PairedProtocol
from ascl_plugin.scoring.topk import TopK, TopKLists
from ascl_plugin.shares import Shares, is_main, shares

__all__ = ["Scorer", "TopK", "score_matrix"]

PROTOCOLS = ("pairwise", "paired")


@overload
def score_matrix(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: None = None,
    path: str | Path | None = None,
    memory: int = 2**30,
    processes: str = "one",
    protocol: str = "pairwise",
    caption_to_image: Any = None,
) -> Tensor: ...


@overload
def score_matrix(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: int,
    path: None = None,
    memory: int = 2**30,
    processes: str = "one",
    protocol: str = "pairwise",
    caption_to_image: Any = None,
) -> TopK: ...


@torch.no_grad()
def score_matrix(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    tile: tuple[int, int] | None = None,
    progress: bool = False,
    *,
    topk: int | None = None,
    path: str | Path | None = None,
    memory: int = 2**30,
    processes: str = "one",
    protocol: str = "pairwise",
    caption_to_image: Any = None,
) -> Tensor | TopK:
    """Scores S (I, T) fp32 on the CPU, in the order given, within a budget of memory.

    What a scorer can prepare once an item (`prepare_images`, `prepare_texts`) is prepared once a
    block, see `blocks`. Features may be on another device than the scorer, or mapped from a file:
    a block of them is moved at a time. The scorer is left in the mode, train or eval, it is in.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features.
        tile: images and texts given to the scorer at once; None takes what `memory` has room for.
        progress: show a bar, on the first process alone.
        topk: keep only the best k of each image and each text, and return `TopK`: what sorting
            the matrix would give, without the matrix.
        path: .npy file to score into. Scores stand there as they come, in `PATH.part`, which is
            moved into place in the end; a run that was killed goes on when it is called again with
            the same inputs, and a finished one is read.
        memory: bytes that scoring may take beside its inputs and its result.
        processes: "one" scores here, whatever other processes do. Of a torch.distributed group in
            which all call this: "split" gives each a share of the same images, "own" takes it that
            each has brought other images, and the same texts. All return the scores of all images,
            in order of rank. With a path, all must see that file.
        protocol: "pairwise", or "paired", which leaks the pairing into the scores and warns
            (see `PairedProtocol`).
        caption_to_image: (T,) image of each text; for "paired" alone.

    Returns:
        (I, T); mapped from the file where there is a path, and yours to write to, not through to
        the file. `TopK` where there is a `topk`.

    Raises:
        ValueError: a tile without extent, k or memory below 1, an unknown word, arguments that do
            not go together; a file of other inputs; NaN where the best are asked for; what the
            scorer raises.
        ImportError: a bar without tqdm.
    """
    _check(tile, topk, memory, protocol, path, caption_to_image)
    scorer: Any = getattr(model, "fusion", model)
    if isinstance(scorer, PairedProtocol):
        raise ValueError('a PairedProtocol needs all at once: give its head, and protocol="paired"')
    rows = shares(processes, len(images), device_of(scorer, images))
    file = None if path is None else Path(path)
    if file is not None:
        if processes == "own":
            raise ValueError('path goes with processes="one" or "split", not with "own"')
        more = f"{protocol} {[] if caption_to_image is None else list(map(int, caption_to_image))}"
        _begin(file, rows, lambda: fingerprint(scorer, images, texts, more))
        if file.exists():
            return open_matrix(file)
    paired: tuple[PairedProtocol, Tensor, Tensor] | None = None
    if protocol == "paired":
        if processes == "own":
            raise ValueError('protocol="paired" goes with processes="one" or "split"')
        leaking = PairedProtocol(scorer)
        v_g, w_g = leaking.vectors(images, texts, caption_to_image)
        paired = leaking, v_g[rows.own], w_g
    if processes == "split":
        images = images[rows.own]

    target = Matrix(rows, len(texts), file) if topk is None else TopKLists(rows, len(texts), topk)
    scores_of = scorer if paired is None else LocalScore(scorer)
    blocks = walk(scores_of, images, texts, tile, memory, rows.device, target.wanted)
    if progress and is_main():
        blocks = with_bar(blocks, len(images) * len(texts), target.done)
    for block, columns, scores in blocks:
        if paired is not None:
            leaking, v_g, w_g = paired
            scores = leaking.combine(scores, v_g[block], w_g[columns.to(w_g.device)])
        target.put(block, columns, scores)
    return target.result()


class Matrix:
    """The matrix being filled, of all processes' rows, in memory or in a file.

    Args:
        rows: which images are whose.
        texts: T.
        path: of the file, begun; None keeps it in memory.
    """

    def __init__(self, rows: Shares, texts: int, path: Path | None) -> None:
        self.rows = rows
        self.path = path
        self.values = torch.empty(rows.total, texts) if path is None else open_matrix(path)
        self.own = self.values[rows.own]
        self.wanted = None if path is None else self._lacks
        self.done = 0 if path is None else self.own.numel() - missing(self.own)

    def _lacks(self, block: slice, columns: Tensor) -> bool:
        return bool(self.own[block][:, columns].isnan().any())

    def put(self, block: slice, columns: Tensor, scores: Tensor) -> None:
        """Scores of a block; its rows are counted from this process's first."""
        self.own[block].index_copy_(1, columns, scores)

    def result(self) -> Tensor:
        """The whole matrix on every process."""
        if self.path is None:
            self.rows.exchange(self.values)
            return self.values
        self.rows.wait()
        if self.rows.rank == 0:
            finish(self.path)
        self.rows.wait()
        return open_matrix(self.path)


def _begin(path: Path, rows: Shares, inputs: Callable[[], dict[str, Any]]) -> None:
    """The first process looks at the file; all hear what it found."""
    wrong: Exception | None = None
    if rows.rank == 0:
        try:
            begin(path, inputs())
        except (ValueError, OSError) as error:
            wrong = error
    said = rows.agree(None if wrong is None else str(wrong))
    if said is not None:
        raise wrong or ValueError(said)


def _check(
    tile: tuple[int, int] | None,
    topk: int | None,
    memory: int,
    protocol: str,
    path: str | Path | None,
    caption_to_image: Any,
) -> None:
    if tile is not None and min(tile) < 1:
        raise ValueError(f"tile must be (images, texts) of at least 1 each, got {tile}")
    if topk is not None and topk < 1:
        raise ValueError(f"topk must be at least 1, got {topk}")
    if memory < 1:
        raise ValueError(f"memory must be a number of bytes, got {memory}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == "paired" and caption_to_image is None:
        raise ValueError('protocol="paired" needs caption_to_image, the image of each text')
    if topk is not None and path is not None:
        raise ValueError("path is for the whole matrix; with topk nothing is written")
