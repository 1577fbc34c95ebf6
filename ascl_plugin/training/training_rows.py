"""Training rows by the keys of a batch."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset

from ascl_plugin.data.dense_captions import DENSE

RowKey = tuple[int, int, "int | tuple[int, ...] | str"]  # (epoch, row, captions or a text)


class TrainingRows(torch.utils.data.Dataset):
    """Rows by (epoch, row, caption): the row carries all that its random draws depend on.

    With a text in the place of the caption, the row has it as `text`.
    """

    def __init__(self, rows: Dataset) -> None:
        # only the columns of a batch: scenes have more, and reading them takes time
        columns = ["image_id", "image", "captions", *({DENSE} & {*rows.column_names})]
        self.rows = rows.select_columns(columns)

    def __getitems__(self, keys: list[RowKey]) -> list[dict[str, Any]]:
        columns = self.rows[[row for _, row, _ in keys]]
        return [
            {"epoch": epoch, "row": row}
            | {"text" if isinstance(caption, str) else "caption_index": caption}
            | {name: values[place] for name, values in columns.items()}
            for place, (epoch, row, caption) in enumerate(keys)
        ]
