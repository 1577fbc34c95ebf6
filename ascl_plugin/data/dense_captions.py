"""Dense captions: long descriptions of an image, in parts that a text encoder can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets

from ascl_plugin.data.json_file import load_json
from ascl_plugin.data.rows import clean_captions

DENSE = "dense_captions"  # column of rows
_STOP = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


def read_dense_captions(path: str | Path) -> dict[str, list[str]]:
    """Read a JSON object of image id -> text, or list of texts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON object; texts that `clean_captions` refuses.
    """
    content = load_json(Path(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object of image id -> texts")
    return {key: dense_texts(texts, f"{path}: image {key}") for key, texts in content.items()}


def dense_texts(given: object, where: str) -> list[str]:
    """Return the texts of one image, of which there may be one, several or (None, []) none.

    Raises:
        ValueError: as of `clean_captions`.
    """
    if given is None or given == []:
        return []
    return clean_captions(given if isinstance(given, list) else [given], where)


def with_dense_captions(
    rows: datasets.Dataset,
    texts: Mapping[str, Sequence[str]],
    fits: Callable[[str], bool],
) -> datasets.Dataset:
    """Return the rows with a column `DENSE`: the parts of each image's dense captions, or [].

    Args:
        rows: rows with `image_id`; a column that they have is the texts where `texts` has none.
        texts: image id -> dense captions.
        fits: function from a text to True if the text encoder reads all of it.

    Raises:
        ValueError: no image has any.
    """
    ids = rows["image_id"][:]
    own = rows[DENSE][:] if DENSE in rows.column_names else [None] * len(rows)
    found = [
        [
            part
            for text in texts.get(i) or dense_texts(mine, f"image {i}")
            for part in parts(text, fits)
        ]
        for i, mine in zip(ids, own, strict=True)
    ]
    if not any(found):
        raise ValueError(
            f"dense_captions: none of {len(ids)} training images has any; an id is {ids[0]!r}"
        )
    kept = rows.remove_columns(DENSE) if DENSE in rows.column_names else rows
    column = datasets.Dataset.from_dict(
        {DENSE: found},
        features=datasets.Features({DENSE: datasets.List(datasets.Value("string"))}),
    )
    return datasets.concatenate_datasets([kept, column], axis=1)


def parts(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Return a text in parts that fit: as many sentences in each as do, in their order.

    A sentence that does not fit is halved between words; a word is never cut.

    >>> parts("One dog. It runs fast. A man looks on.", lambda text: len(text.split()) < 7)
    ['One dog. It runs fast.', 'A man looks on.']
    """
    found: list[str] = []
    for sentence in _STOP.split(text.strip()):
        joined = f"{found[-1]} {sentence}" if found else sentence
        if found and fits(joined):
            found[-1] = joined
        else:
            found += _halved(sentence.split(), fits)
    return found


def _halved(words: list[str], fits: Callable[[str], bool]) -> list[str]:
    text = " ".join(words)
    if len(words) < 2 or fits(text):
        return [text]
    middle = len(words) // 2
    return _halved(words[:middle], fits) + _halved(words[middle:], fits)
