"""Frozen features of pictures, one file an image: finished images are never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ascl_plugin.adapters.regions.npy import array_names, record_name, save_record
from ascl_plugin.adapters.regions.reader import RegionRecord, refuse_as_name
from ascl_plugin.data.images import load_image
from ascl_plugin.disk import write_text, written
from ascl_plugin.interfaces import Fingerprinted, ImageEncoder, Row
from ascl_plugin.retrieval.inputs import device_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from ascl_plugin.adapters.detectors.detector import Detections

SPEC = "extraction.json"
DTYPES = ("float32", "float16")


@runtime_checkable
class Detector(Protocol):
    """An image encoder whose regions have boxes, as `RegionDetector`."""

    def detect(self, pictures: Sequence[Image]) -> list[Detections]:
        """Return the regions of each picture, boxes in its own pixels."""
        ...


class FeatureFolder:
    """A folder that `open_regions` reads, filled by one frozen image encoder.

    Regions with boxes are `ID.npz` (`features`, `bbox`), others `ID.npy`; whole-image features are
    `ID.npy` of one axis; an id with a slash is a file in a
    folder. Files are written aside and moved into place. `extraction.json` names the
    encoder, and no other encoder may continue in the folder.

    Args:
        folder: made when missing.
        encoder: any image encoder; the boxes of a `Detector` are kept.
        pooled: keep the whole-image feature instead of the regions.
        dtype: type of the numbers on disk, "float32" or "float16".

    Raises:
        ValueError: another dtype; an encoder that is not frozen.
        FileExistsError: the folder holds features of another encoder, or of an unknown one.
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: ImageEncoder,
        pooled: bool = False,
        dtype: str = "float32",
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if not encoder.frozen or not isinstance(encoder, Fingerprinted):
            raise ValueError(
                f"{folder}: {type(encoder).__name__} is not frozen, it learns with the model, so "
                "there are no features to keep; timm_grid is a pretrained grid"
            )
        self.folder, self.encoder = Path(folder), encoder
        self.pooled, self.dtype = pooled, dtype
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = {"features": "pooled" if pooled else "regions", "dtype": dtype}
        self._claim(
            json.dumps({**spec, "encoder": encoder.fingerprint()}, indent=2, sort_keys=True)
        )
        self._done = {name[:-4] for name in array_names(self.folder)}

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._done

    def write(self, pictures: Mapping[str, Image]) -> None:
        """Encode and write pictures by image id, except those that are there already.

        Raises:
            ValueError: an id that cannot name a file; features that are not finite in `dtype`.
        """
        todo = {name: p for name, p in pictures.items() if name not in self}
        for name in todo:
            refuse_as_name(name, str(self.folder))
        if not todo:
            return
        for name, (features, boxes) in zip(todo, self._encode(list(todo.values())), strict=True):
            record = RegionRecord(self._rounded(name, features), boxes)
            with written(self.folder / record_name(name, record)) as aside:
                save_record(aside, record)
            self._done.add(name)

    @torch.no_grad()
    def _encode(self, pictures: list[Image]) -> Iterator[tuple[Tensor, np.ndarray | None]]:
        """Yield features and boxes of each picture."""
        if isinstance(self.encoder, Detector):
            for found in self.encoder.detect(pictures):
                boxes = found.boxes.float().cpu().numpy()
                yield (found.pooled, None) if self.pooled else (found.features, boxes)
            return
        device = device_of(self.encoder)
        pixels = torch.stack([self.encoder.preprocess(p) for p in pictures]).to(device)
        out = self.encoder(pixels)
        if self.pooled and out.pooled is not None:
            yield from ((pooled, None) for pooled in out.pooled)
        else:
            masks = [slice(None)] * len(out) if out.mask is None else out.mask
            yield from ((r[mask], None) for r, mask in zip(out.regions, masks, strict=True))

    def _rounded(self, name: str, features: Tensor) -> np.ndarray:
        with np.errstate(over="ignore"):  # refused below
            values = features.float().cpu().numpy().astype(self.dtype)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.folder}: features of image {name!r} are not finite in {self.dtype}"
            )
        return values

    def _claim(self, spec: str) -> None:
        """Write the encoder's name into the folder, or refuse a folder of another encoder."""
        note = self.folder / SPEC
        if note.exists():
            if note.read_text() != spec:
                raise FileExistsError(
                    f"{self.folder} holds features of another encoder or with other options "
                    f"({SPEC} names it); choose another --output_dir or remove it"
                )
        elif any(array_names(self.folder)):
            raise FileExistsError(f"{self.folder} holds features without {SPEC}: made by another")
        else:
            write_text(note, spec, shared=True)  # every process writes the same


def extract(
    rows: Sequence[Row],
    folders: Sequence[FeatureFolder],
    batch_size: int = 8,
    num_workers: int = 0,
    skip_bad: bool = False,
    progress: bool = True,
) -> list[str]:
    """Write the features of all pictures of `rows` to all folders; each picture is decoded once.

    Args:
        rows: rows of this process, with `image_id` and `image`.
        folders: folders to fill.
        batch_size: number of pictures decoded and encoded at once.
        num_workers: number of processes that decode.
        skip_bad: continue after pictures that do not decode.
        progress: show a bar.

    Returns:
        The error of each picture that was skipped, with image and file.

    Raises:
        FileNotFoundError, ValueError: a picture that is missing or does not decode, without
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
    """Decoded pictures; in place of a bad one its error, since a worker's is hard to read."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[str, Image | Exception]:
        row = self.rows[index]
        try:
            return row["image_id"], load_image(row["image"] or {}, row["image_id"])
        except (ValueError, OSError) as error:
            return row["image_id"], error
