"""Do pictures hold more objects than captions hold notional words? (ACF-R+, section 1)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ascl_plugin.asymmetry.measure import asymmetry_statistics, outnumbering
from ascl_plugin.data.object_counts import coco_instances, detected_regions, scene_objects
from ascl_plugin.data.words import NOTIONAL, Tagger, Word
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
        "numerals, as the tagger of ascl_plugin.data.words finds them.",
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
