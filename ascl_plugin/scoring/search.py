"""Two stages, for galleries no matrix can hold: candidates from an index, exact scores on those."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ascl_plugin.disk import written
from ascl_plugin.features import ImageFeatures, TextFeatures, mean_of_places
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.topk import TopK, best_of_pairs

CELL = 500  # texts of a cluster, on average


@torch.no_grad()
def search(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    candidates: int = 100,
    topk: int = 10,
    *,
    embeddings: str | tuple[Tensor, Tensor] = "regions",
    index: str | tuple[Any, Any] = "Flat",
    index_options: str = "",
    memory: int = 2**30,
    progress: bool = False,
) -> TopK:
    """The best texts of each image and the best images of each text, by exact scores of candidates.

    Candidates are what an index of one vector an item puts first, so no result is better than
    these vectors are aligned between images and texts: see `search_report`. A pair that either
    direction brings up is scored once and counts in both.

    Args:
        model: a scorer `(images, texts) -> (I, T)`, or a model whose `fusion` is one.
        images, texts: features.
        candidates: texts an image, and images a text, that are scored; at least `topk`.
        topk: length of the lists.
        embeddings: "regions" (mean of the regions) or "pooled" (the whole-image feature) against
            the mean of the words, at unit length; or vectors (I, E) and (T, E) of your own, as
            they are.
        index: faiss factory string: "Flat" is exact; "IVF100,Flat" and "HNSW32" are not. Or two
            faiss indexes of these vectors, of images and of texts, such as `open_shards` gives.
        index_options: of faiss, such as "nprobe=10" or "efSearch=64"; of an index made here.
        memory: bytes that scoring may take, as of `score_matrix`. The index takes those of its
            vectors, and a candidate pair some 100 bytes.
        progress: show a bar.

    Returns:
        Lists of min(topk, gallery) items, -1 with a score of -inf where an index that is not exact
        brought fewer.

    Raises:
        ImportError: no faiss.
        ValueError: topk below 1 or above candidates; embeddings that fit neither each other nor
            the features; an index that faiss cannot make.
    """
    if not 1 <= topk <= candidates:
        raise ValueError(f"topk must be from 1 to candidates, got {topk} of {candidates}")
    if isinstance(embeddings, str):
        v, w = image_embeddings(images, embeddings), text_embeddings(texts)
    else:
        v, w = (torch.as_tensor(x).detach().float().cpu() for x in embeddings)
    for name, vectors, items in (("images", v, images), ("texts", w, texts)):
        if vectors.ndim != 2 or len(vectors) != len(items) or vectors.shape[1] != v.shape[-1]:
            raise ValueError(
                f"embeddings must be (I, E) and (T, E), got {tuple(v.shape)} and "
                f"{tuple(w.shape)} for {len(items)} {name}"
            )
    rows, columns = candidate_pairs(v, w, candidates, index, index_options)
    near = clusters(w, max(1, len(w) // CELL))
    scores = score_pairs(model, images, texts, rows, columns, near, memory, progress)
    k_texts, k_images = min(topk, len(texts)), min(topk, len(images))
    return TopK(
        *best_of_pairs(rows, columns, scores, len(images), k_texts),
        *best_of_pairs(columns, rows, scores, len(texts), k_images),
    )


def candidate_pairs(
    image_vectors: Tensor,
    text_vectors: Tensor,
    candidates: int,
    index: str | tuple[Any, Any] = "Flat",
    index_options: str = "",
) -> tuple[Tensor, Tensor]:
    """Rows and columns (P,) of all pairs that either direction puts among its first.

    Args:
        image_vectors, text_vectors: (I, E) and (T, E) fp32; near is a high inner product.
        candidates: how many an item asks for.
        index, index_options: as of `search`.
    """
    of_images, of_texts = (index, index) if isinstance(index, str) else index
    texts = _nearest(text_vectors, image_vectors, candidates, of_texts, index_options)
    images = _nearest(image_vectors, text_vectors, candidates, of_images, index_options)
    width = len(text_vectors)
    keys = []
    for found, queries_are_images in ((texts, True), (images, False)):
        query = torch.arange(len(found))[:, None]
        key = query * width + found if queries_are_images else found * width + query
        keys.append(key[found >= 0])  # -1 is nobody
    key = torch.cat(keys).unique()
    return key // width, key % width


def make_index(gallery: Tensor, factory: str, options: str = "") -> Any:
    """A faiss index that holds the gallery (N, E) fp32; near is a high inner product.

    Raises:
        ImportError: no faiss.
        ValueError: one that faiss cannot make.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError('search needs faiss: pip install "ascl-plugin[search]"') from error
    vectors = gallery.contiguous().numpy()
    try:
        index = faiss.index_factory(gallery.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if options:
            space: Any = faiss.ParameterSpace()
            space.set_index_parameters(index, options)
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise ValueError(
            f"faiss cannot make an index {factory!r} {options!r} of {len(gallery)} vectors: {error}"
        ) from error
    return index


def _nearest(gallery: Tensor, queries: Tensor, count: int, index: Any, options: str) -> Tensor:
    """(Q, min(count, gallery)) int64, -1 where the index finds fewer."""
    if isinstance(index, str):
        index = make_index(gallery, index, options)
    elif (index.ntotal, index.d) != tuple(gallery.shape):
        raise ValueError(
            f"an index of {index.ntotal} vectors of {index.d} numbers was given for "
            f"{tuple(gallery.shape)}"
        )
    return torch.from_numpy(index.search(queries.contiguous().numpy(), min(count, len(gallery)))[1])


def clusters(vectors: Tensor, count: int) -> Tensor:
    """(N,) for each vector the nearest of `count` evenly spaced ones of them."""
    pivots = vectors[torch.linspace(0, len(vectors) - 1, count).long()]
    return torch.cat([(part @ pivots.T).argmax(1) for part in vectors.split(2**14)])


def search_report(
    model: Any,
    images: ImageFeatures,
    texts: TextFeatures,
    candidates: int = 100,
    topk: int = 10,
    *,
    memory: int = 2**30,
    **options: Any,
) -> dict[str, float]:
    """What two stages find, and cost, beside scoring everything: on a size where both fit.

    Args:
        model, images, texts, candidates, topk, memory, options: as of `search`.

    Returns:
        `i2t_recall`, `t2i_recall`: share of the exact first `topk` found, in percent;
        `search_seconds`, `exact_seconds`: wall time, index included.
    """
    start = time.perf_counter()
    found = search(model, images, texts, candidates, topk, memory=memory, **options)
    middle = time.perf_counter()
    exact = score_matrix(model, images, texts, topk=topk, memory=memory)
    end = time.perf_counter()
    return {
        "i2t_recall": list_recall(found.i2t_ids, exact.i2t_ids),
        "t2i_recall": list_recall(found.t2i_ids, exact.t2i_ids),
        "search_seconds": middle - start,
        "exact_seconds": end - middle,
    }


def list_recall(found: Tensor, exact: Tensor) -> float:
    """Percent of the items of `exact` (Q, k) that are in the same row of `found` (Q, any)."""
    rows = zip(found.split(1024), exact.split(1024), strict=True)
    hits = sum(int((e[:, :, None] == f[:, None, :]).any(2).sum()) for f, e in rows)
    return 100 * hits / exact.numel()


CHUNK = 2**26  # bytes of features averaged at once


@torch.no_grad()
def image_embeddings(images: ImageFeatures, of: str = "regions") -> Tensor:
    """(I, D) fp32 on the CPU, unit length.

    Args:
        images: features.
        of: "regions" (mean of the real ones) or "pooled" (the whole-image feature).

    Raises:
        ValueError: another word; "pooled" where images have no such feature.
    """
    if of not in ("regions", "pooled"):
        raise ValueError(f"embeddings are of 'regions' or 'pooled', got {of!r}")
    if of == "pooled" and images.pooled is None:
        raise ValueError("embeddings of 'pooled' got images without pooled")
    found = []
    for part in images.split(max(1, CHUNK * len(images) // max(1, images.nbytes))):
        vectors = part.pooled if of == "pooled" else mean_of_places(part.regions, part.mask)
        assert vectors is not None
        found.append(normalize(vectors.float(), dim=-1).cpu())
    return torch.cat(found)


@torch.no_grad()
def text_embeddings(texts: TextFeatures) -> Tensor:
    """(T, D) fp32 on the CPU, unit length: the mean of the real words."""
    found = [
        normalize(mean_of_places(part.words, part.mask).float(), dim=-1).cpu()
        for part in texts.split(max(1, CHUNK * len(texts) // max(1, texts.nbytes)))
    ]
    return torch.cat(found)


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
