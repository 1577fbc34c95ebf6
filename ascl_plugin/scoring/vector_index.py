"""Indexes of vectors, by faiss: in memory, or in a file for each part of a gallery."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ascl_plugin.disk import written
from ascl_plugin.interfaces import VectorIndex

NAME = "shard-{:06d}.faiss"


def make_index(gallery: Tensor, factory: str, options: str = "") -> VectorIndex:
    """Return a faiss index that holds the gallery (N, E) fp32; near is a high inner product.

    Raises:
        ImportError: no faiss.
        ValueError: faiss cannot make it.
    """
    faiss = _faiss()
    vectors = gallery.contiguous().numpy()
    try:
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if options:
            faiss.ParameterSpace().set_index_parameters(index, options)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise ValueError(
            f"faiss cannot make an index {factory!r} {options!r} of {len(gallery)} vectors: {error}"
        ) from error
    return index


def write_shards(
    parts: Iterable[Tensor], folder: str | Path, index: str = "Flat", index_options: str = ""
) -> list[Path]:
    """Write an index file for each part of a gallery; one part at a time is in memory.

    The first part trains the index (the cells of "IVF...", the codes of "PQ..."); all parts share
    that, so that together they answer as one index would. Existing files are kept.

    Args:
        parts: (n, E) fp32 each, in the order of the gallery, any n from 1; near is a high inner
            product.
        folder: made when missing.
        index, index_options: faiss's factory string and options of the search, see `search`. If
            the folder has files already, theirs are used.

    Returns:
        The files, in their order.

    Raises:
        ImportError: no faiss.
        ValueError: an index that faiss cannot make; no parts; parts of different widths.
    """
    faiss = _faiss()
    paths: list[Path] = []
    trained: Any = None
    for part in parts:
        paths.append(path := Path(folder) / NAME.format(len(paths)))
        if trained is None:
            there = path.exists()
            trained = (
                faiss.read_index(str(path)) if there else make_index(part, index, index_options)
            )
            trained.reset()
        if part.shape[1] != trained.d:
            raise ValueError(f"{path}: vectors of {part.shape[1]} numbers, before of {trained.d}")
        if not path.exists():
            shard = faiss.clone_index(trained)
            shard.add(part.contiguous().numpy())
            with written(path) as aside:
                faiss.write_index(shard, str(aside))
    if not paths:
        raise ValueError(f"{folder}: no vectors to index")
    return paths


def open_shards(folder: str | Path, index_options: str = "", mapped: bool = True) -> VectorIndex:
    """Return the files of `write_shards` as one faiss index; ids are positions in the gallery.

    Args:
        folder: of the files. Only open files that you wrote: faiss does not check its input.
        index_options: of faiss, such as "nprobe=10"; files do not keep them.
        mapped: leave vectors of "IVF..." on disk and read them on demand.

    Raises:
        ImportError: no faiss.
        FileNotFoundError: no files, or one is missing between others.
    """
    faiss = _faiss()
    paths = sorted(Path(folder).glob("shard-*.faiss"))
    for number in range(max(1, len(paths))):
        if paths[number : number + 1] != [Path(folder) / NAME.format(number)]:
            raise FileNotFoundError(f"{folder}: no {NAME.format(number)}")
    shards = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0) for path in paths]
    if index_options:
        for shard in shards:
            faiss.ParameterSpace().set_index_parameters(shard, index_options)
    if len(shards) == 1:
        return shards[0]
    whole = faiss.IndexShards(shards[0].d, True, True)  # in threads; ids count on
    for shard in shards:
        whole.add_shard(shard)
    return whole


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('search needs faiss: pip install "ascl-plugin[search]"') from error
    return faiss
