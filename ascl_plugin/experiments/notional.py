"""Do pictures hold more objects than captions hold notional words? (ACF-R+, section 1)"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ascl_plugin.asymmetry.captions.tagger import NOTIONAL, Tagger
from ascl_plugin.asymmetry.measure import asymmetry_statistics, outnumbering
from ascl_plugin.experiments.plan import Settings
from ascl_plugin.experiments.study import Study
from ascl_plugin.interfaces import Rows
from ascl_plugin.report.document import Section
from ascl_plugin.report.table import Cell, Table

#: Kind of object -> its number in each image, None for an unknown image.
Counts = dict[str, list[int | None]]

WORDS = {"notional words": NOTIONAL, "nouns": frozenset({"NOUN", "PROPN"})}
_NOTES = {
    "objects": "Objects of drawn scenes are exact.",
    "instances": "Instances are those that COCO's annotators marked, of 80 categories; a marked "
    "crowd is one.",
    "regions": "Regions are those that a detector kept; the files tell neither classes nor scores, "
    "so two of one object count as two.",
}


def experiment(study: Study, settings: Settings) -> Section:
    """Return the share of image-caption pairs with more objects than words of the caption.

    Args:
        study: no model of it is trained.
        settings: `instances`, COCO's instances JSON, or `regions`, a detector's region files; one
            of them, or both, unless the rows are drawn scenes.

    Raises:
        ValueError: the objects of the images are not known.
        ImportError: no tagger.
    """
    rows = study.rows()
    found = study.cell("notional", "shares", lambda: measure(rows, settings))
    kinds = {row["objects"] for row in found}
    notes = [
        "Notional words are nouns, verbs but \"be\" and modal verbs, adjectives, adverbs and "
        "numerals, as the tagger of ascl_plugin.asymmetry.captions.tagger finds them.",
        *(text for kind, text in _NOTES.items() if kind in kinds),
        "The paper tells of over 75% on Flickr30K, and names neither detector nor tagger.",
    ]  # fmt: skip
    if _are_scenes(rows):
        facts = asymmetry_statistics(
            {"facts": image, "caption_facts": text}
            for image, text in zip(rows["facts"], rows["caption_facts"], strict=True)
        )
        notes.append(
            f"By exact facts in place of objects and words: {facts['image_facts']:.1f} an image, "
            f"{facts['text_facts']:.1f} a caption; the image holds more of them in "
            f"{100 * facts['image_holds_more']:.1f}% of the pairs."
        )
    tables = [Table("Objects of the image against words of the caption", found)]
    return Section("Objects against notional words", tables=tables, notes=notes)


def measure(rows: Rows, settings: Settings) -> list[dict[str, Cell]]:
    """Return rows of the table: each way to count objects against each way to count words."""
    counts = scene_objects(rows["facts"]) if _are_scenes(rows) else {}
    for name, read in (("instances", coco_instances), ("regions", detected_regions)):
        if settings.get(name):
            counts |= read(settings[name], rows["image_id"][:])
    if not counts:
        raise ValueError(
            "experiment notional: the objects of the images are known of drawn scenes only; its "
            "settings give a file, instances: COCO's instances JSON or regions: a detector's"
        )
    tagger = Tagger()
    tagged = [[[word.pos for word in tagger.tag(c)] for c in own] for own in rows["captions"][:]]
    found: list[dict[str, Cell]] = []
    for objects, of_images in counts.items():
        known = {i: count for i, count in enumerate(of_images) if count is not None}
        for kind, parts in WORDS.items():
            of_captions = [[sum(p in parts for p in words) for words in tagged[i]] for i in known]
            share = outnumbering(list(known.values()), of_captions)
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


def scene_objects(facts: Iterable[Sequence[str]]) -> Counts:
    """Return exact numbers of `objects`, and of distinct `kinds of objects`, of drawn scenes.

    Args:
        facts: the column `facts` of `ascl_plugin.data.scenes.make`.
    """
    of_rows = [
        [int(fact.split(":")[2]) for fact in own if fact.startswith("count:")] for own in facts
    ]
    return {
        "objects": [sum(counts) for counts in of_rows],
        "kinds of objects": [len(counts) for counts in of_rows],
    }


def coco_instances(path: str | Path, image_ids: Sequence[str]) -> Counts:
    """Return numbers of `instances` and of distinct `categories` in an `instances_*.json`.

    Args:
        path: the file.
        image_ids: ids of the rows, spelled in any way that `normal_id` makes equal.

    Raises:
        ValueError: no such JSON, or none of the images in it.
    """
    from ascl_plugin.adapters.regions.reader import normal_id

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        ids = {normal_id(image["file_name"]): image["id"] for image in content["images"]}
        marked: dict[int, list[int]] = {number: [] for number in ids.values()}
        for one in content["annotations"]:
            marked[one["image_id"]].append(one["category_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not COCO's instances JSON: {error!r}") from error
    rows = [marked.get(ids.get(normal_id(image_id), -1)) for image_id in image_ids]
    _refuse_unknown(rows, path, image_ids)
    return {
        "instances": [None if row is None else len(row) for row in rows],
        "categories": [None if row is None else len(set(row)) for row in rows],
    }


def detected_regions(path: str | Path, image_ids: Sequence[str]) -> Counts:
    """Return numbers of `regions` in any file that `open_regions` reads.

    The files hold boxes at most, no classes and no scores: two regions of one object are two.

    Raises:
        ValueError: none of the images in the file; the same number of regions in all of them, which
            is how many the extraction kept and no count of objects.
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


def _are_scenes(rows: Rows) -> bool:
    return "facts" in getattr(rows, "column_names", ())


def _refuse_unknown(found: Sequence[object], path: str | Path, image_ids: Sequence[str]) -> None:
    if all(one is None for one in found):
        raise ValueError(f"{path} knows none of the {len(image_ids)} images, as {image_ids[:1]}")
