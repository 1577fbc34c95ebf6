"""SCAN's precomputed folders as a source of captions: there are no pictures, only features."""

from __future__ import annotations

from pathlib import Path

import datasets

from ascl_plugin.data.rows import SPLITS, clean_captions, split_named, to_dataset
from ascl_plugin.data.scan_layout import CAPTIONS, read_split, split_names


def read_scan(folder: str | Path) -> datasets.DatasetDict:
    """Read captions of `{train,dev,test}_caps.txt`; `testall`, if there, is the test split.

    An image's id is its line of `X_ids.txt`, without that file "X-row".

    Args:
        folder: the folder of `X_caps.txt`, and of `X_ims.npy` or `X_ids.txt` for each X.

    Returns:
        Rows as `ascl_plugin.data.rows.ROW`, their `image` empty.

    Raises:
        ValueError: an unknown split; captions that `clean_captions` refuses; unequal counts.
    """
    folder = Path(folder)
    found = {}
    for name in split_names(folder, CAPTIONS):
        where = f"{folder / (name + CAPTIONS)}"
        ours = "test" if name == "testall" else split_named(name, where)
        split = read_split(folder, name)
        captions = split.captions or []
        each = len(captions) // len(split.ids)
        rows = []
        for number, image_id in enumerate(split.ids):
            mine = captions[number * each : (number + 1) * each]
            rows.append(
                {
                    "image_id": image_id,
                    "image": None,
                    "captions": clean_captions(mine, f"{where}: image {image_id}"),
                    "caption_ids": [f"{image_id}#{k}" for k in range(each)],
                    "split": ours,
                }
            )
        found[ours] = to_dataset(rows)
    return datasets.DatasetDict({name: found[name] for name in SPLITS if name in found})
