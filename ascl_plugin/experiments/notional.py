"""Do pictures hold more objects than captions hold notional words? (ACF-R+, section 1)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascl_plugin.asymmetry.captions.tagger import NOTIONAL, Tagger, Word
from ascl_plugin.asymmetry.measure import asymmetry_statistics, outnumbering
from ascl_plugin.experiments.results import Result, Table

if TYPE_CHECKING:
    from ascl_plugin.experiments.study import Study

_NOTES = {
    "objects": "Objects of drawn scenes are exact.",
    "instances": "Instances are those that COCO's annotators marked, of 80 categories; a marked "
    "crowd is one.",
    "regions": "Regions are what a detector kept; the files tell neither classes nor scores, so "
    "two of one object count as two.",
}


def experiment(study: Study, settings: dict[str, Any]) -> Result:
    """The share of image-caption pairs whose image holds more objects than its caption words.

    Args:
        study: no model of it is trained.
        settings: `instances`, COCO's instances JSON, or `regions`, a detector's region files; one
            of them, or both, unless the rows are drawn scenes.

    Raises:
        ValueError: nothing tells the objects of the images.
        ImportError: no tagger.
    """
    rows = study.rows()
    found = study.cell("notional", "shares", lambda: measure(rows, settings))
    tables = [Table("Objects of the image against words of the caption", found)]
    kinds = {row["objects"] for row in found}
    notes = [
        "Notional words are nouns, verbs but \"be\" and modal verbs, adjectives, adverbs and "
        "numerals, as the tagger of ascl_plugin.asymmetry.captions.tagger finds them.",
        *(text for kind, text in _NOTES.items() if kind in kinds),
        "The paper tells of over 75% on Flickr30K, and names neither detector nor tagger.",
    ]  # fmt: skip
    if "facts" in rows.column_names:
        facts = asymmetry_statistics(rows.select_columns(["facts", "caption_facts"]))
        notes.append(
            f"By exact facts in place of objects and words: {facts['image_facts']:.1f} an image, "
            f"{facts['text_facts']:.1f} a caption; the image holds more of them in "
            f"{100 * facts['image_holds_more']:.1f}% of the pairs."
        )
    return Result("Objects against notional words", tables, [], notes)


def measure(rows: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: each way to count objects against each way to count words."""
    counts: dict[str, Any] = {}
    if "facts" in rows.column_names:
        counts |= scene_objects(rows.select_columns(["facts"]))
    for name, read in (("instances", coco_instances), ("regions", detected_regions)):
        if settings.get(name):
            counts |= read(settings[name], rows["image_id"][:])
    if not counts:
        raise ValueError(
            "experiment notional: what objects the images hold is known of drawn scenes only; "
            "its settings give a file, instances: COCO's instances JSON or regions: a detector's"
        )
    captions = rows["captions"][:]
    tagger = Tagger()
    tagged = [[tagger.tag(text) for text in several] for several in captions]
    kinds = {"notional words": NOTIONAL, "nouns": frozenset({"NOUN", "PROPN"})}
    found = []
    for objects, of_images in counts.items():
        known = [i for i, count in enumerate(of_images) if count is not None]
        for kind, parts in kinds.items():
            of_captions = [[_count(words, parts) for words in tagged[i]] for i in known]
            share = outnumbering([of_images[i] for i in known], of_captions)
            found.append(
                {
                    "objects": objects,
                    "words": kind,
                    "images": f"{len(known)} of {len(of_images)}",
                    "pairs": share["pairs"],
                    "objects an image": round(share["objects"], 2),
                    "words a caption": round(share["words"], 2),
                    "more objects, percent": round(100 * share["more"], 1),
                    "as many, percent": round(100 * share["equal"], 1),
                }
            )
    return found


def _count(words: list[Word], parts: frozenset[str]) -> int:
    return sum(word.pos in parts for word in words)


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
    from ascl_plugin.adapters.regions.reader import normal_id

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
    from ascl_plugin.adapters.regions.reader import normal_id
    from ascl_plugin.adapters.regions.region_files import open_regions

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
