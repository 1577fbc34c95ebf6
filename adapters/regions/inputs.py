"""Region files as a model's image input: no pictures, no image encoder that runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ascl_plugin.adapters.regions.reader import RegionReader
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.interfaces import Row, Rows


class PrecomputedRegions(nn.Module):
    """Stand-in for an image encoder: states the widths of the features, and encodes nothing.

    The files are named at training and evaluation (`--region_files`), so a saved model holds no
    path.

    Args:
        region_dim: width of a region feature.
        pooled_dim: width of the whole-image feature; None: as regions.
        num_regions: K, maximum number of regions taken of an image.
    """

    frozen = True
    from_files = True

    def __init__(
        self, region_dim: int = 2048, pooled_dim: int | None = None, num_regions: int = 36
    ) -> None:
        super().__init__()
        self.region_dim, self.num_regions = region_dim, num_regions
        self.pooled_dim = region_dim if pooled_dim is None else pooled_dim

    def forward(self, pixel_values: Tensor) -> NoReturn:
        """Raise ValueError: there is no encoder here."""
        raise ValueError("this model's image features come from files: give --region_files")

    def fingerprint(self) -> dict[str, object]:
        """Return the options, as JSON."""
        return {
            "encoder": "region_files",
            "region_dim": self.region_dim,
            "pooled_dim": self.pooled_dim,
            "num_regions": self.num_regions,
        }


class RegionInputs:
    """Rows -> `regions` (N, K, D), `pooled` (N, D), `region_mask` (N, K) where some have fewer.

    A row is found by its `image_id`, else by its image's file name, as `normal_id` spells them.
    Features are read from the files each time: they stay in the page cache, and workers of a
    DataLoader read for themselves.

    Args:
        region_files: file or folder that `open_regions` opens.
        pooled_files: the same, of whole images; several vectors of an image are averaged. None: the
            mean of the regions taken.
        num_regions: maximum number of regions of an image; the first ones are taken.

    Attributes:
        region_dim, pooled_dim: widths.
    """

    store = None  # nothing is cached: the files are the cache

    def __init__(
        self,
        region_files: str | Path,
        pooled_files: str | Path | None = None,
        num_regions: int = 36,
    ) -> None:
        if num_regions < 1:
            raise ValueError(f"num_regions must be at least 1, got {num_regions}")
        self.num_regions = num_regions
        self.regions = open_regions(region_files)
        self.pooled = None if pooled_files is None else open_regions(pooled_files)
        if (count := self.regions.count(0)) > 4 * self.regions.dim:
            warnings.warn(
                f"{self.regions.where(0)} has {count:,} regions of width {self.regions.dim}: is it "
                "stored the other way round? There are no boxes to tell by",
                stacklevel=2,
            )
        self._owners: dict[tuple[str, int], tuple[str, str]] = {}  # (file, entry) -> id, picture
        self.region_dim = self.regions.dim
        self.pooled_dim = (self.pooled or self.regions).dim

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return tensors of N rows, float32."""
        regions = [self._features(self.regions, row, self.num_regions) for row in rows]
        if self.pooled is None:
            pooled = [r.mean(0) for r in regions]
        else:
            pooled = [self._features(self.pooled, row, None).mean(0) for row in rows]
        batch = {
            "regions": pad_sequence(regions, batch_first=True),
            "pooled": torch.stack(pooled),
        }
        lengths = torch.tensor([len(r) for r in regions])
        if int(lengths.min()) < int(lengths.max()):
            batch["region_mask"] = torch.arange(int(lengths.max())) < lengths[:, None]
        return batch

    def boxes(self, row: Row) -> np.ndarray | None:
        """Return x0 y0 x1 y1 (K, 4) of the regions taken of a row's image; None: no boxes."""
        name = self._name(self.regions, row) or row["image_id"]
        return self.regions.regions(name, self.num_regions).boxes

    def prepare(self, rows: Rows, batch_size: int, **sharing: object) -> None:
        """Check that there are features of every row, its own, before hours are spent.

        Raises:
            KeyError: some have none; the message names the first, and counts the others.
            ValueError: two image ids, of these rows or of earlier ones, have one entry.
        """
        if hasattr(rows, "select_columns"):  # of a `datasets.Dataset`: captions are not read
            rows = rows.select_columns(["image_id", "image"])
        for reader in filter(None, (self.regions, self.pooled)):
            lacking = [row for row in rows if self._name(reader, row) is None]
            if lacking:
                raise KeyError(
                    f"{reader.path}: no features of image {lacking[0]['image_id']!r}, and of "
                    f"{len(lacking) - 1} more of {len(rows)}; it has {len(reader)} images, the "
                    f"first {reader.ids[0]!r}{reader.note}"
                )

    def _features(self, reader: RegionReader, row: Row, limit: int | None) -> Tensor:
        found = reader.regions(self._name(reader, row) or row["image_id"], limit)
        return torch.from_numpy(found.features.astype("float32"))

    def _name(self, reader: RegionReader, row: Row) -> str | None:
        """Return the reader's name for the row's image; None: it has no such image.

        Raises:
            ValueError: another image id has the same entry; id and file name have two.
        """
        image_id, path = row["image_id"], (row["image"] or {}).get("path") or ""
        found = {reader.entry(n): n for n in (image_id, Path(path).name) if n in reader}
        if not found:
            return None
        (entry, name), *others = found.items()
        if others:
            raise ValueError(
                f"{reader.path}: image {image_id!r} ({path}) is entry {reader.ids[entry]!r} by its "
                f"id and {reader.ids[others[0][0]]!r} by its file name; give it an id that is no "
                "other image's"
            )
        owner = self._owners.setdefault((str(reader.path), entry), (image_id, path))
        if owner != (image_id, path):
            second = image_id if owner[0] != image_id else path
            raise ValueError(
                f"{reader.path}: images {owner[owner[0] == image_id]!r} and {second!r} are both "
                f"entry {reader.ids[entry]!r}, found by a name without suffix, COCO's prefix and "
                "leading zeros, or without folder; name features by whole image ids"
            )
        return name
