"""Edits of texts: what they change, what they must not say, and that the wording tells nothing."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("textblob", reason="extra `words`")
from ascl_plugin.asymmetry import AsymmetryCollator, TextEdits
from ascl_plugin.asymmetry.captions.text_edits import NEGATIVE_EDITS, POSITIVE_EDITS

CAPTIONS = [
    [
        "A man in a red shirt rides a brown horse on the beach .",
        "A boy with a lamp rides a horse",
        "A rider and a lamp .",
    ],
    ["Two dogs play with a tennis ball in the snow.", "Two puppies and a ball and a kite"],
    ["Three women drink some wine at a small table", "a large table and some wine",
     "a green shirt"],
]  # fmt: skip
EDITS = TextEdits(CAPTIONS)


def all_of(make, row, edit, text=None, captions=None):
    """Every text that 60 seeds give."""
    captions = captions or CAPTIONS[row]
    return {make(text or captions[0], captions, edit, np.random.default_rng(n)) for n in range(60)}


def test_inserted_lies_by_hand():
    """Phrases of other images that a caption of theirs lacks, joined in two places.

    Of image 0 the third caption lacks the horse, of image 2 table and wine; the kite of image 1 is
    named once.
    """
    assert all_of(EDITS.negative, 1, "insert") == {
        f"Two dogs play with a tennis ball{first} in the snow{second}."
        for phrase in (
            "a lamp",
            "a horse",
            "a brown horse",
            "some wine",
            "a small table",
            "a large table",
        )
        for first, second in ((f" and {phrase}", ""), ("", f" with {phrase}"))
    }


def test_inserted_truths_by_hand():
    """The lamp is named by two captions, and not by the first; nothing of that kind in image 1."""
    assert all_of(EDITS.positive, 0, "insert") == {
        f"A man{first} in a red shirt rides a brown horse{second} on the beach{third} ."
        for first, second, third in (
            (" and a lamp", "", ""), ("", " and a lamp", ""), ("", "", " with a lamp")
        )
    }  # fmt: skip
    assert all_of(EDITS.positive, 1, "insert") == {CAPTIONS[1][0]}


def test_replaced_by_hand():
    """A thing by another caption's name for it; lies of the same number, that nobody names."""
    truths = all_of(EDITS.positive, 0, "replace")
    assert "A rider in a red shirt rides a brown horse on the beach ." in truths
    assert "A man in a red shirt rides a horse on the beach ." in truths
    assert len(truths) == 3
    lies = all_of(EDITS.negative, 0, "replace")
    assert "A man in a green shirt rides a brown horse on the beach ." in lies
    assert "A ball in a red shirt rides a brown horse on the beach ." in lies
    assert not any(said in " ".join(lies) for said in ("wine", "puppies", "women", "lamp"))


def test_a_relation_by_its_opposite():
    """ "Behind" is no lie where another caption says it; sides are drawn as captions have them."""
    texts = [
        ["Red ball in front of it", "red"], ["a ball behind a kite", "a ball in front of it"],
        ["it is behind"], ["it is under a kite"], ["a lamp", "a lamp", "it"],
    ]  # fmt: skip
    edits = TextEdits(texts)

    def lies(row):
        return all_of(edits.negative, row, "replace", texts[row][0], texts[row])

    assert "Red ball behind it" in lies(0)
    assert "it is in front of" in lies(2)
    assert not any("in front of a kite" in text for text in lies(1))
    assert not any("above a kite" in text for text in lies(3))  # nobody says it


def test_what_is_likely_there_is_seldom_a_lie():
    """Kites are in 20 of 26 images, balls in 5, both in half of their captions.

    By `Naming` a kite that four captions lack is there in 80 % all the same, a ball in 6 %: of 20
    kites and 5 balls, 4.0 and 4.7 are left.
    """
    texts = [[f"a {thing}", f"a {thing}", "it", "it"] for thing in ["kite"] * 20 + ["ball"] * 5]
    texts.append(["a man", "he", "he", "he"])
    edits = TextEdits(texts)
    lies = [
        edits.negative("a man", texts[-1], "insert", np.random.default_rng(n)) for n in range(600)
    ]
    assert sum("kite" in text for text in lies) / 600 == pytest.approx(4.0 / 8.7, abs=0.05)


def test_swapped_by_hand():
    assert all_of(EDITS.negative, 0, "swap") == {
        "A horse in a red shirt rides a brown man on the beach .",
        "A man in a red horse rides a brown shirt on the beach .",
        "A shirt in a red man rides a brown horse on the beach .",
        "A man in a red shirt rides a brown beach on the horse .",
        "A man in a red beach rides a brown horse on the shirt .",
        "A beach in a red shirt rides a brown horse on the man .",
        "A man in a brown shirt rides a red horse on the beach .",
    }
    # one noun: another edit
    assert all(
        text != "a green shirt" for text in all_of(EDITS.negative, 2, "swap", "a green shirt")
    )


def test_two_of_a_kind_are_not_renamed():
    """ "A man" of one caption may be another than "a boy" of a caption that has two people."""
    edits = TextEdits([["a man and a boy", "a boy on a horse"], ["a kite", "a red kite"]])
    assert edits.positive(
        "a boy on a horse", ["a man and a boy", "a boy on a horse"], "replace",
        np.random.default_rng(0),
    ) == "a boy on a horse"  # fmt: skip


def test_a_phrase_removed():
    assert all_of(EDITS.positive, 0, "remove") == {
        "A man rides a brown horse on the beach .", "A man in a red shirt rides a brown horse ."
    }  # fmt: skip


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from(("a", "red", "dog", ",", "and", "with", "of", "in", "kite", ".", "-")),
        max_size=8,
    ),
    st.sampled_from(NEGATIVE_EDITS),
)
def test_any_text_has_a_negative(words, edit):
    text = " ".join(words)
    found = EDITS.negative(text, [text or "a car"], edit, np.random.default_rng(0))
    assert found != text
    assert found == EDITS.negative(text, [text or "a car"], edit, np.random.default_rng(0))


def test_nothing_left_is_an_error():
    everything = " ".join(text for texts in CAPTIONS for text in texts)
    with pytest.raises(ValueError, match="no noun phrase of another image can be inserted"):
        EDITS.negative("a man", [everything], "insert", np.random.default_rng(0))
    with pytest.raises(ValueError, match="no caption of 1 images holds a phrase"):
        TextEdits([["the sky is blue"]])
    with pytest.raises(ValueError, match="edit must be one of insert, replace, swap"):
        EDITS.negative("a man", ["a man"], "remove", np.random.default_rng(0))


def tokenize(texts):
    return {"input_ids": torch.tensor([[len(text)] for text in texts])}


def rows_of(captions, **more):
    return [{"captions": c, "row": n, **more} for n, c in enumerate(captions)]


@pytest.mark.parametrize("positives", ["none", "mixed", *POSITIVE_EDITS])
def test_the_collator_gives_caption_and_positive_a_negative_each(positives):
    collator = AsymmetryCollator(tokenize, None, positives, "mixed_text", edits=EDITS)
    batch = collator(rows_of(CAPTIONS))
    generated = {"positive_input_ids", "positive_negative_input_ids"}
    captions = {"input_ids", "negative_input_ids", "row", "caption_index"}
    assert set(batch) == captions | (set() if positives == "none" else generated)
    drawn = collator.draw(rows_of(CAPTIONS)[0])
    assert drawn["negative"] != drawn["caption"]
    assert drawn.get("positive_negative") != drawn.get("positive") or positives == "none"


def test_what_is_drawn_depends_on_seed_epoch_row_and_caption_alone():
    def drawn(seed=0, epoch=0, positives="mixed", edits=EDITS):
        collator = AsymmetryCollator(tokenize, None, positives, "insert", seed, edits)
        return [collator.draw(row) for row in rows_of(CAPTIONS * 4, epoch=epoch, caption_index=0)]

    first = drawn()
    # another process has edits of its own
    assert first == drawn(edits=TextEdits(CAPTIONS))
    assert first == drawn(edits=pickle.loads(pickle.dumps(EDITS)))
    for other in (drawn(seed=1), drawn(epoch=1)):
        assert [d["negative"] for d in other] != [d["negative"] for d in first]
    alone = drawn(positives="none")
    assert [d["negative"] for d in alone] == [d["negative"] for d in first]
    noises = AsymmetryCollator(tokenize, None, "mixed", "mixture", 0)
    kept = [noises.draw(row)["positive"] for row in rows_of(CAPTIONS * 4, caption_index=0)]
    assert kept == [d["positive"] for d in first]


@pytest.mark.parametrize(
    "options", [{"negatives": "insert"}, {"positives": "remove"}, {"edits": EDITS}]
)
def test_edits_and_their_strategies_go_together(options):
    with pytest.raises(ValueError, match="edits, TextEdits of training captions, go with"):
        AsymmetryCollator(tokenize, **options)


THINGS = (
    "kite", "spoon", "ladder", "barrel", "candle", "guitar", "basket", "umbrella", "bottle",
    "drum", "carrot", "suitcase", "lamp", "violin", "hammer", "melon", "rope", "shovel",
)  # fmt: skip
PLACES = ("in the snow", "by the sea", "on the grass", "at night")


def drawn_captions(count=400):
    """Images of three to five things; each of five captions tells two or three."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, len(THINGS) + 1) ** 0.5
    found = []
    for _ in range(count):
        size = int(rng.integers(3, 6))
        own = rng.choice(THINGS, size=size, replace=False, p=frequency / frequency.sum())
        captions = []
        for _ in range(5):
            some = rng.permutation(own)[: rng.integers(2, 4)]
            told = [f"a {('', 'wooden ', 'plastic ')[rng.integers(3)]}{thing}" for thing in some]
            captions.append(f"{' and '.join(told)} {PLACES[rng.integers(4)]}".capitalize())
        found.append(captions)
    return found


def blind_accuracy(pairs):
    """Percentage that a logistic regression of words gets right, fitted on the other half.

    It sees which words a text has, and how often; no image.
    """
    half = len(pairs) // 2
    counts = [[Counter(text.lower().split()) for text in pair] for pair in pairs]
    words = sorted({word for pair in counts[:half] for text in pair for word in text})
    found = []
    for part in (counts[:half], counts[half:]):
        texts = [text for pair in part for text in pair]
        found.append(torch.tensor([[float(t[word]) for word in words] for t in texts]))
    right = torch.tensor([1.0, 0.0]).repeat(half)
    model = torch.nn.Linear(len(words), 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), 0.05, weight_decay=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        score = model(found[0])[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(score, right).backward()
        optimizer.step()
    with torch.no_grad():
        true = torch.tensor([1.0, 0.0]).repeat(len(pairs) - half) > 0.5
        return 100 * ((model(found[1])[:, 0] > 0) == true).float().mean().item()


@pytest.mark.parametrize(
    ("positives", "negatives", "told"),
    [("insert", "insert", False), ("replace", "replace", False), (None, "insert", True)],
)
def test_the_wording_tells_nothing_of_balanced_edits(positives, negatives, told):
    """Truth against lie by a bag of words: within 5 points of 50. Of the caption against its lie
    it tells far more: the lie has a phrase more.
    """
    captions = drawn_captions()
    edits = TextEdits(captions)
    pairs = []
    for row, own in enumerate(captions * 3):
        rng = np.random.default_rng([7, row])
        text = own[rng.integers(5)]
        true = text if positives is None else edits.positive(text, own, positives, rng)
        if positives is None or true != text:
            pairs.append((true, edits.negative(text, own, negatives, rng)))
    assert len(pairs) > 500
    found = blind_accuracy(pairs)
    assert found > 70 if told else abs(found - 50) < 5, found
