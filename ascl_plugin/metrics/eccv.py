"""CxC and ECCV-Caption, which correct false negatives of COCO, by the package `eccv_caption`.

Chun et al., "ECCV Caption: Correcting False Negatives by Collecting Machine-and-Human-verified
Image-Caption Associations for MS-COCO", 2022; Parekh et al., "Crisscrossed Captions", 2021. The
package contains both annotations of the COCO 5K test split; nothing is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from ascl_plugin.metrics import protocols
from ascl_plugin.metrics.recall import Owners, checked, other_direction
from ascl_plugin.ranking import top_candidates
from ascl_plugin.scores import Array, as_tensor

Rankings = dict[int, list[int]]
Ids = Sequence[int | str]

_DEEPEST_RECALL = 10
_TARGETS = (
    "coco_1k_recalls", "coco_5k_recalls", "cxc_recalls", "eccv_r1", "eccv_map_at_r",
    "eccv_rprecision",
)  # fmt: skip


def eccv_metrics(
    sim: Array, image_ids: Ids, caption_ids: Ids, t2i: Array | None = None
) -> dict[str, float]:
    """Return recalls on COCO 1K, COCO 5K, CxC; R@1, mAP@R and R-precision on ECCV-Caption.

    Args:
        sim: (I, T) similarities of the COCO 5K test split, numpy or torch, rows and columns in any
            order. Images and captions that the package does not have (Karpathy's split has ten
            captions more than its 25,000) are left out.
        image_ids, caption_ids: COCO's ids of rows and columns, integers or digits; the columns
            "image_id" and "caption_ids" of a split read from Karpathy's or COCO's JSON.
        t2i: (I, T), for text-to-image instead of `sim`.

    Returns:
        In percent, named by data set, direction and metric: ``coco_1k_i2t_r1, ...,
        cxc_t2i_r10, eccv_i2t_r1, eccv_i2t_map_at_r, eccv_i2t_rprecision, ...``. COCO 1K uses the
        package's folds, whatever the order of the rows.

    Raises:
        ImportError: no `eccv_caption`.
        TypeError, ValueError: as `eccv_rankings`; a missing id of the split.
    """
    package = _package().Metrics()
    captions = [int(caption) for caption in package.coco_ids]
    image_of = {caption: images[0] for caption, images in package.coco_gts["t2i"].items()}
    images = list(dict.fromkeys(image_of[caption] for caption in captions))
    height, width = as_tensor(sim, "sim").shape
    rows = _places(images, _integers(image_ids, "image_ids", height), "image")
    columns = _places(captions, _integers(caption_ids, "caption_ids", width), "caption")
    number = {image: row for row, image in enumerate(images)}
    i2t_found, t2i_found = eccv_rankings(
        _taken(sim, rows, columns),
        images,
        captions,
        [number[image_of[caption]] for caption in captions],
        None if t2i is None else _taken(t2i, rows, columns),
    )
    found = package.compute_all_metrics(i2t_found, t2i_found, _TARGETS, Ks=(1, 5, 10))
    result = {}
    for name, both in found.items():
        data = next(d for d in ("coco_1k", "coco_5k", "cxc", "eccv") if name.startswith(d))
        for way, value in both.items():
            result[f"{data}_{way}_{name.removeprefix(data + '_')}"] = 100 * float(value)
    return result


def eccv_rankings(
    sim: Array,
    image_ids: Ids,
    caption_ids: Ids,
    caption_to_image: Owners,
    t2i: Array | None = None,
    depth: int = 50,
) -> tuple[Rankings, Rankings]:
    """Return rankings in the format that `eccv_caption.Metrics` takes.

    The best `depth` of each query. With 5,000 images, the best ten of the query's own fold of 1,000
    (in the order of the rows) follow if not yet among them: the package removes from a ranking what
    is not of the fold for its COCO 1K recalls, and fails if nothing is left. Of equal scores the
    lower index comes first.

    Args:
        sim: (I, T) similarities, numpy or torch.
        image_ids, caption_ids: ids of rows and columns, integers or digits.
        caption_to_image: (T,) ints.
        t2i: (I, T), for text-to-image instead of `sim`.
        depth: length of the rankings. A query of ECCV-Caption has up to 48 right captions, or 19
            right images.

    Returns:
        image id -> caption ids, and caption id -> image ids, best first.

    Raises:
        TypeError, ValueError: as `retrieval_metrics`; ids that are not integers, occur twice, or
            do not match sim in number.
    """
    scores, owners = checked(sim, "sim", caption_to_image)
    text_scores, text_owners = other_direction(t2i, scores, owners)
    images, texts = scores.shape
    image_id = _integers(image_ids, "image_ids", images)
    caption_id = _integers(caption_ids, "caption_ids", texts)
    i2t, t2i_lists = _best(scores, depth), _best(text_scores.T, depth)
    if images == 5 * protocols.FOLD_IMAGES:
        for rows, columns in protocols.folds(owners, images, "coco_1k"):
            inside, own = torch.arange(images)[rows], columns.to(text_owners.device)
            _extend(i2t, inside, columns, scores[rows][:, columns])
            _extend(t2i_lists, columns, inside, text_scores[rows][:, own].T)
    return _with_ids(i2t, image_id, caption_id), _with_ids(t2i_lists, caption_id, image_id)


def _best(scores: Tensor, depth: int) -> list[list[int]]:
    return top_candidates(scores, min(depth, scores.shape[1])).tolist()


def _extend(lists: list[list[int]], queries: Tensor, items: Tensor, scores: Tensor) -> None:
    """Append the best ten items of a fold to its queries' lists, unless there already."""
    names = items.tolist()
    best = _best(scores, _DEEPEST_RECALL)
    for query, places in zip(queries.tolist(), best, strict=True):
        there = set(lists[query])
        lists[query] += [names[place] for place in places if names[place] not in there]


def _with_ids(lists: list[list[int]], queries: list[int], items: list[int]) -> Rankings:
    return {q: [items[i] for i in found] for q, found in zip(queries, lists, strict=True)}


def _integers(ids: Ids, name: str, count: int) -> list[int]:
    if len(ids) != count:
        raise ValueError(f"{name} has {len(ids)} entries, sim wants {count}")
    first: dict[int, int] = {}
    for place, entry in enumerate(ids):
        try:
            number = int(entry)
        except ValueError:
            raise ValueError(f"{name}: entry {place} is {entry!r}, expected an integer") from None
        if first.setdefault(number, place) != place:
            raise ValueError(f"{name}: {number} occurs twice, at {first[number]} and {place}")
    return list(first)


def _places(wanted: list[int], given: list[int], what: str) -> list[int]:
    place = {number: index for index, number in enumerate(given)}
    lacking = [number for number in wanted if number not in place]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of the {len(wanted)} {what}s of the COCO 5K test split are not among "
            f"the ids, for example {lacking[0]}: pass that split, with COCO's ids"
        )
    return [place[number] for number in wanted]


def _taken(sim: Array, rows: list[int], columns: list[int]) -> Array:
    height, width = as_tensor(sim, "sim").shape
    if rows != list(range(height)):
        sim = sim[rows]
    return sim if columns == list(range(width)) else sim[:, columns]


def _package() -> ModuleType:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "failed to import `ujson`")  # json does as well
        try:
            import eccv_caption
        except ImportError as error:
            raise ImportError(
                'CxC and ECCV-Caption need eccv-caption: pip install "ascl-plugin[eccv]"'
            ) from error
    return eccv_caption
