"""Frozen features of pictures, written a file an image: what is finished stays finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ascl_plugin.adapters.regions.reader import refuse_as_name
from ascl_plugin.data.images import load_image
from ascl_plugin.disk import write_text, written
from ascl_plugin.scoring.blocks import device_of

SPEC = "extraction.json"
DTYPES = ("float32", "float16")
SUFFIXES = (".npy", ".npz")


class FeatureFolder:
    """A folder that `open_regions` reads, filled by one frozen image encoder.

    Regions with boxes are `ID.npz` (`features`, `bbox`), others `ID.npy`; whole-image features are
    `ID.npy` of one axis. Files are written aside and moved into place. `extraction.json` says what
    made them, and no other encoder may go on in the same folder.

    Args:
        folder: made when missing.
        encoder: `preprocess`, `fingerprint` and a forward as of any image encoder; or `detect`, as
            of `RegionDetector`, which gives boxes.
        pooled: keep the whole-image feature instead of the regions.
        dtype: of the numbers on disk, "float32" or "float16".

    Raises:
        ValueError: another dtype; an encoder that is not frozen.
        FileExistsError: the folder holds features of another encoder, or of nobody knows what.
    """

    def __init__(
        self, folder: str | Path, encoder: Any, pooled: bool = False, dtype: str = "float32"
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if not encoder.frozen:
            raise ValueError(
                f"{folder}: {type(encoder).__name__} is not frozen, so its features are not to keep"
            )
        self.folder, self.encoder = Path(folder), encoder
        self.pooled, self.dtype = pooled, dtype
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = {"features": "pooled" if pooled else "regions", "dtype": dtype}
        self._sign(json.dumps({**spec, "encoder": encoder.fingerprint()}, indent=2, sort_keys=True))
        names = [n for n in os.listdir(self.folder) if n.endswith(SUFFIXES)]
        self._done = {name[:-4] for name in names if not name.startswith(".")}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._done

    def write(self, pictures: Mapping[str, Any]) -> None:
        """Encodes and writes pictures by image id, those that are there already left out.

        Raises:
            ValueError: an id that cannot name a file; features that are not finite in `dtype`.
        """
        todo = {name: p for name, p in pictures.items() if name not in self}
        for name in todo:
            refuse_as_name(name, str(self.folder))
        if not todo:
            return
        encoded = self._encode(list(todo.values()))
        for name, (features, boxes) in zip(todo, encoded, strict=True):
            self._save(name, features, boxes)
            self._done.add(name)

    @torch.no_grad()
    def _encode(self, pictures: list[Any]) -> Iterable[tuple[Tensor, Tensor | None]]:
        """Features and boxes of each."""
        if hasattr(self.encoder, "detect"):
            found = self.encoder.detect(pictures)
            if self.pooled:
                return [(d.pooled, None) for d in found]
            return [(d.features, d.boxes) for d in found]
        device = device_of(self.encoder)
        pixels = torch.stack([self.encoder.preprocess(p) for p in pictures]).to(device)
        out = self.encoder(pixels)
        if self.pooled:
            return [(p, None) for p in out.pooled]
        if out.mask is None:
            return [(r, None) for r in out.regions]
        return [(r[real], None) for r, real in zip(out.regions, out.mask, strict=True)]

    def _save(self, name: str, features: Tensor, boxes: Tensor | None) -> None:
        values = features.float().cpu().numpy()
        with np.errstate(over="ignore"):  # said below
            values = values.astype(self.dtype)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.folder}: features of image {name!r} are not finite in {self.dtype}"
            )
        path = self.folder / (name + SUFFIXES[boxes is not None])
        with written(path) as aside, open(aside, "wb") as file:
            if boxes is None:
                np.save(file, values, allow_pickle=False)
            else:
                np.savez(file, features=values, bbox=boxes.float().cpu().numpy())

    def _sign(self, spec: str) -> None:
        """Says whose the folder is, or that it is another's."""
        note = self.folder / SPEC
        if note.exists():
            if note.read_text() != spec:
                raise FileExistsError(
                    f"{self.folder} holds features of another encoder or with other options "
                    f"({SPEC} says which); choose another --output_dir or remove it"
                )
        elif any(name.endswith(SUFFIXES) for name in os.listdir(self.folder)):
            raise FileExistsError(f"{self.folder} holds features without {SPEC}: made by another")
        else:
            write_text(note, spec, shared=True)  # every process writes the same


def extract(
    rows: Sequence[Mapping[str, Any]],
    folders: Sequence[FeatureFolder],
    batch_size: int = 8,
    num_workers: int = 0,
    skip_bad: bool = False,
    progress: bool = True,
) -> list[str]:
    """Features of all pictures of `rows` into all folders, each picture decoded once.

    Args:
        rows: `image_id` and `image`, as of `ascl_plugin.data.readers`; of this process.
        folders: to fill.
        batch_size: pictures decoded and encoded at once.
        num_workers: processes that decode.
        skip_bad: go on after pictures that do not decode.
        progress: show a bar.

    Returns:
        What is wrong with each picture that was skipped, image and file named.

    Raises:
        FileNotFoundError, ValueError: a picture that is not there or does not decode, without
            `skip_bad`.
    """
    loader = DataLoader(_Pictures(rows), batch_size, num_workers=num_workers, collate_fn=list)
    bad = []
    with tqdm(total=len(rows), desc="extracting features", disable=not progress) as bar:
        for batch in loader:
            pictures = {}
            for image_id, picture in batch:
                if not isinstance(picture, Exception):
                    pictures[image_id] = picture
                elif skip_bad:
                    bad.append(str(picture))
                else:
                    raise picture
            for folder in folders:
                folder.write(pictures)
            bar.update(len(batch))
    return bad


class _Pictures(Dataset):
    """Decoded pictures; in place of a bad one its error, for a worker's is hard to read."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        row = self.rows[index]
        try:
            return row["image_id"], load_image(row["image"] or {}, row["image_id"])
        except (ValueError, OSError) as error:
            return row["image_id"], error
