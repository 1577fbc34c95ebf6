"""Captions of a drawn scene, and the three variants of its first caption."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from ascl_plugin.data.drawing import COLOURS
from ascl_plugin.data.sentences import JOINERS, OPENINGS, Mention, Sentence
from ascl_plugin.data.shapes import NOUNS

_WORDS_MIN, _WORDS_MAX = 6, 16
_PLACES = ("left", "right", "top", "bottom", "middle")


def captions_of(rng: random.Random, groups: tuple[Mention, ...], ground: str) -> list[Sentence]:
    """Draw five sentences with five information sets that together mention every group.

    Each is about another two or three of the groups, as far as there are five such choices. The
    first leaves out at least one group, so that a true one can still be added to it.

    Args:
        rng: source of chance.
        groups: the scene's groups, as complete mentions.
        ground: the scene's ground.
    """
    choices = [some for size in (2, 3) for some in itertools.combinations(groups, size)]
    while True:
        rng.shuffle(choices)
        chosen = (choices * 2)[:5]
        if len(chosen[0]) == len(groups) or set(groups) != set().union(*chosen):
            continue
        captions = [_sentence(rng, some, ground) for some in chosen]
        if len({frozenset(caption.facts()) for caption in captions}) == len(captions):
            return captions


def variants_of(
    rng: random.Random, groups: tuple[Mention, ...], caption: Sentence
) -> dict[str, Sentence]:
    """Draw the `negative`, `richer` and `shorter` variant of a caption."""
    said = {mention.noun for mention in caption.mentions}
    present = [group.noun for group in groups]
    left_out = rng.choice([group for group in groups if group.noun not in said])
    added = _mention(rng, left_out, 0.5)
    absent = replace(
        added,
        noun=rng.choice([noun for noun in NOUNS if noun not in present]),
        colour=rng.choice(list(COLOURS)) if added.colour else "",
        places=_elsewhere(rng, added.places),
    )
    at = rng.randint(0, len(caption.mentions))
    dropped = rng.randrange(len(caption.mentions))

    def with_added(mention: Mention) -> Sentence:
        return replace(caption, mentions=(*caption.mentions[:at], mention, *caption.mentions[at:]))

    kept = tuple(m for k, m in enumerate(caption.mentions) if k != dropped)
    return {
        "negative": with_added(absent),
        "richer": with_added(added),
        "shorter": replace(caption, mentions=kept),
    }


def _sentence(rng: random.Random, groups: tuple[Mention, ...], ground: str) -> Sentence:
    while True:
        order = rng.sample(groups, len(groups))
        sentence = Sentence(
            tuple(_mention(rng, group, 0.8 if len(groups) == 2 else 0.4) for group in order),
            ground if rng.random() < 0.5 else "",
            rng.choice(OPENINGS),
            rng.choice(JOINERS),
        )
        if _WORDS_MIN <= len(sentence.words().split()) <= _WORDS_MAX:
            return sentence


def _mention(rng: random.Random, group: Mention, detail: float) -> Mention:
    """Keep the size and the place, or one of two places, with probability `detail` each."""
    places = group.places if rng.random() < detail else ()
    if len(places) == 2 and rng.random() < 0.3:
        places = (rng.choice(places),)
    colour = group.colour if rng.random() < 0.95 else ""
    return replace(
        group, colour=colour, size=group.size if rng.random() < detail else "", places=places
    )


def _elsewhere(rng: random.Random, places: tuple[str, ...]) -> tuple[str, ...]:
    """Draw as many places anew."""
    if len(places) == 2:
        return rng.choice(("top", "bottom")), rng.choice(("left", "right"))
    return (rng.choice(_PLACES),) if places else ()
