"""An index of vectors in several files: each built on its own, all searched as one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ascl_plugin.disk import written
from ascl_plugin.retrieval.search import make_index

NAME = "shard-{:06d}.faiss"


def write_shards(
    parts: Iterable[Tensor], folder: str | Path, index: str = "Flat", index_options: str = ""
) -> list[Path]:
    """Writes one file for each part of a gallery; one part at a time is in memory.

    What an index learns (the cells of "IVF...", the codes of "PQ...") it learns of the first part,
    and all others have the same, so that together they answer as one index would. Parts whose file
    is there are not made again; each file is written aside and moved into place.

    Args:
        parts: (n, E) fp32 each, in the order of the gallery, any n from 1; near is a high inner
            product.
        folder: made when missing.
        index, index_options: faiss's factory string and options of the search, as of `search`; of
            a folder that has files already, theirs.

    Returns:
        The files, in their order.

    Raises:
        ImportError: no faiss.
        ValueError: an index that faiss cannot make; no parts; parts of different widths.
    """
    faiss = _faiss()
    folder = Path(folder)
    paths: list[Path] = []
    learnt: Any = None
    for part in parts:
        path = folder / NAME.format(len(paths))
        paths.append(path)
        if learnt is not None and part.shape[1] != learnt.d:
            raise ValueError(f"{path}: vectors of {part.shape[1]} numbers, before of {learnt.d}")
        if path.exists() and learnt is not None:
            continue
        if learnt is None and path.exists():
            learnt = faiss.read_index(str(path))
            learnt.reset()
            continue
        if learnt is None:
            learnt = make_index(part, index, index_options)
        shard = faiss.clone_index(learnt)
        shard.reset()
        shard.add(part.contiguous().numpy())
        with written(path) as aside:
            faiss.write_index(shard, str(aside))
    if not paths:
        raise ValueError(f"{folder}: no vectors to index")
    return paths


def open_shards(folder: str | Path, index_options: str = "", mapped: bool = True) -> Any:
    """The files of `write_shards` as one faiss index, whose ids are positions in the gallery.

    Args:
        folder: of the files. Only open files that you wrote: faiss does not check what it reads.
        index_options: of faiss, such as "nprobe=10"; they are not kept in files.
        mapped: leave vectors of "IVF..." on disk, to be read as they are asked for.

    Raises:
        ImportError: no faiss.
        FileNotFoundError: no files, or one is lacking between others.
    """
    faiss = _faiss()
    paths = sorted(Path(folder).glob("shard-*.faiss"))
    lacking = [NAME.format(n) for n in range(len(paths)) if paths[n].name != NAME.format(n)]
    if not paths or lacking:
        raise FileNotFoundError(f"{folder}: no {lacking[0] if lacking else NAME.format(0)}")
    flags = faiss.IO_FLAG_MMAP if mapped else 0
    shards = [faiss.read_index(str(path), flags) for path in paths]
    if len(shards) == 1:
        whole = shards[0]
    else:
        whole = faiss.IndexShards(shards[0].d, True, True)  # in threads; ids count on
        for shard in shards:
            whole.add_shard(shard)
    if index_options:
        for shard in shards:
            faiss.ParameterSpace().set_index_parameters(shard, index_options)
    return whole


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('search needs faiss: pip install "ascl-plugin[search]"') from error
    return faiss
