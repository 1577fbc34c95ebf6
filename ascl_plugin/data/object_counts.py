"""How many objects each image holds: of drawn scenes, of COCO's instances, of a detector."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def scene_objects(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Of drawn scenes, exactly.

    Args:
        rows: with `facts`, as `ascl_plugin.data.scenes.make` gives them.

    Returns:
        `objects` and distinct `kinds of objects`, a number for each row.
    """
    found: dict[str, list[int]] = {"objects": [], "kinds of objects": []}
    for row in rows:
        counts = [int(fact.split(":")[2]) for fact in row["facts"] if fact.startswith("count:")]
        found["objects"].append(sum(counts))
        found["kinds of objects"].append(len(counts))
    return found


def coco_instances(path: str | Path, image_ids: Sequence[str]) -> dict[str, list[int | None]]:
    """Of photographs that COCO's annotators marked, in an `instances_*.json`.

    Args:
        path: of the file.
        image_ids: of the rows, spelled in any way that `normal_id` makes equal.

    Returns:
        `instances` and distinct `categories`, a number for each row, None where the file does not
        know the image. A marked crowd is one instance.

    Raises:
        ValueError: no such JSON, or none of the images in it; the message names the file.
        OSError: the file is not there.
    """
    from ascl_plugin.adapters.region_reader import normal_id

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        ids = {normal_id(image["file_name"]): image["id"] for image in content["images"]}
        marked: dict[Any, list[Any]] = {number: [] for number in ids.values()}
        for one in content["annotations"]:
            marked[one["image_id"]].append(one["category_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO's instances JSON: {error!r}") from error
    rows = [marked.get(ids.get(normal_id(image_id))) for image_id in image_ids]
    _refuse_unknown(rows, path, image_ids)
    return {
        "instances": [None if row is None else len(row) for row in rows],
        "categories": [None if row is None else len(set(row)) for row in rows],
    }


def detected_regions(path: str | Path, image_ids: Sequence[str]) -> dict[str, list[int | None]]:
    """Of a detector's region features, in any file that `open_regions` reads.

    The files hold boxes at most, no classes and no scores, so what is counted is regions: two of
    one object are two.

    Returns:
        `regions`, a number for each row, None where the file lacks the image.

    Raises:
        ValueError: none of the images in the file; the same number of regions in all of them, which
            is what the extraction kept and no count of objects.
        OSError, ImportError: of `open_regions`.
    """
    from ascl_plugin.adapters.region_files import normal_id, open_regions

    reader = open_regions(path)
    entries = {normal_id(image_id): entry for entry, image_id in enumerate(reader.ids)}
    places = [entries.get(normal_id(image_id)) for image_id in image_ids]
    _refuse_unknown(places, path, image_ids)
    counts = [None if place is None else reader.count(place) for place in places]
    known = {count for count in counts if count is not None}
    if len(known) == 1 and len(image_ids) > 1:
        raise ValueError(
            f"{path} holds {known.pop()} regions of every image: that is how many were kept, not "
            "how many objects there are"
        )
    return {"regions": counts}


def _refuse_unknown(found: Sequence[Any], path: str | Path, image_ids: Sequence[str]) -> None:
    if all(one is None for one in found):
        raise ValueError(f"{path} knows none of the {len(image_ids)} images, as {image_ids[:1]}")
