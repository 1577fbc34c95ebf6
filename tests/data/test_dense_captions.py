"""Dense captions: parts that fit, a file or a column of them, and positives made of them."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest

from ascl_plugin.asymmetry import AsymmetryCollator, generate_positive
from ascl_plugin.data.dense_captions import (
    DENSE,
    parts,
    read_dense_captions,
    with_dense_captions,
)
from ascl_plugin.data.tables import read_table

TEXT = 'A dog runs. It is brown! Does "it" bark? A man in a red hat looks on from the other side.'


def fits(text):
    return len(text.split()) <= 6


def test_whole_sentences_as_many_as_fit():
    """3 + 3 words; 4; one of 12 words in halves."""
    assert parts(TEXT, fits) == [
        "A dog runs. It is brown!", 'Does "it" bark?', "A man in a red hat",
        "looks on from the other side.",
    ]  # fmt: skip
    assert parts(TEXT, lambda text: True) == [TEXT]
    assert parts("dog", lambda text: False) == ["dog"]
    assert " ".join(parts(TEXT, fits)) == TEXT  # nothing is cut


def test_a_file_and_a_column(tmp_path):
    path = tmp_path / "dense.json"
    path.write_text(json.dumps({"a": TEXT, "b": ["A cat."], "z": "of no image"}))
    rows = datasets.Dataset.from_dict({"image_id": ["a", "b", "c"], "captions": [["x"]] * 3})
    found = with_dense_captions(rows, read_dense_captions(path), fits)
    assert [len(own) for own in found[DENSE]] == [4, 1, 0]
    assert found["captions"][:] == rows["captions"][:]
    again = with_dense_captions(found, {"c": ["A bird sings."]}, fits)
    assert again[DENSE][:] == [*found[DENSE][:2], ["A bird sings."]]
    with pytest.raises(ValueError, match="none of 3 training images has any; an id is 'a'"):
        with_dense_captions(rows, {"1": ["A cat."]}, fits)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "expected an object"), ('{"a": [""]}', "image a: caption 0 is empty"),
     ('{"a": 3}', "image a: caption 0 is 3")],
)  # fmt: skip
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "dense.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_dense_captions(path)


def test_a_table_keeps_its_column(tmp_path):
    """Two rows of image a are joined; a text that both have is one."""
    table = {
        "image": ["a.jpg", "a.jpg", "b.jpg"], "caption": ["x", "y", "z"],
        "image_id": ["a", "a", "b"], DENSE: ["long", "long", None],
    }  # fmt: skip
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["train"][DENSE][:] == [["long"], []]


def test_they_take_the_place_of_concatenation():
    captions, dense = ["a dog", "a brown dog"], ["A dog runs.", "It is brown."]
    drawn = {
        generate_positive(captions, 0, "concatenate", np.random.default_rng(n), dense)
        for n in range(20)
    }
    assert drawn == set(dense)
    collator = AsymmetryCollator(lambda texts: {}, None, "mixed", "none")
    rows = [{"captions": captions, DENSE: dense, "row": 0, "epoch": n} for n in range(40)]
    assert {collator.draw(row)["positive"] for row in rows} == {"a", "a brown", *dense}
    assert collator.draw({"captions": captions, DENSE: [], "epoch": 3, "row": 0})["positive"]
