"""The bottom-up-attention TSV: a line an image, boxes and features in base64.

Columns as published with bottom-up attention (image_id, image_w, image_h, num_boxes, boxes,
features), or as LXMERT's, which has four more before num_boxes. Both arrays are float32.
"""

from __future__ import annotations

import base64
import binascii
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ascl_plugin.adapters.regions.reader import RegionReader, RegionRecord

MAX_LINE = 2**24  # bytes: 100 boxes of 2048 numbers take 1.1 MB
MAX_ID = 1024  # bytes
_LAYOUTS = {6: (0, 3, 4, 5), 10: (0, 7, 8, 9)}  # columns -> places of id, count, boxes, features
_FLOAT = np.dtype("<f4")


class RegionTsv(RegionReader):
    """A TSV and the index of its lines, made in one pass over the file whenever it is opened.

    `ascl convert` packs it into a file that opens at once.

    An image whose line occurs twice, word for word, is one image. Lines that are torn, and images
    of no boxes, are left out with a warning; an error for an image that is not there names them.

    Raises:
        ValueError: no line that is whole; a line that is too long; an image twice with other
            features. The message has the line's number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        ids, self.offsets, self.counts, left_out = _index(path)
        self.ids = ids
        if left_out:
            more = ", ..." if len(left_out) > 3 else ""
            self.note = f"; {len(left_out)} line(s) left out: {', '.join(left_out[:3])}{more}"
        if not ids:
            raise ValueError(f"{path}: no images in it{self.note}")
        if left_out:
            warnings.warn(f"{path}{self.note}", stacklevel=4)
        first = self._parse(0)
        super().__init__(path, ids, first.features.shape[1], _FLOAT, first.boxes is not None)

    def _count(self, entry: int) -> int:
        return int(self.counts[entry])

    def _read(self, entry: int, count: int) -> RegionRecord:
        features, boxes = self._parse(entry)
        return RegionRecord(features[:count], None if boxes is None else boxes[:count])

    def _parse(self, entry: int) -> RegionRecord:
        where = self.where(entry)
        with open(self.path, "rb") as file:
            file.seek(self.offsets[entry])
            image_id, found, boxes, features = _fields(file.readline(MAX_LINE + 1), where)
        count = int(self.counts[entry])
        if image_id != self.ids[entry] or found != count:
            raise ValueError(f"{where}: the file changed while it was open")
        return RegionRecord(
            _decode(features, count, f"{where}, features"),
            _decode(boxes, count, f"{where}, boxes") if boxes else None,
        )


class TornLine(ValueError):
    """A line that holds no image: cut short, run into the next, or of no boxes."""


def _fields(line: bytes, where: str) -> tuple[str, int, bytes, bytes]:
    """Return id, count, boxes and features of a line."""
    if len(line) > MAX_LINE:
        raise ValueError(f"{where}: the line is longer than {MAX_LINE >> 20} MB")
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) not in _LAYOUTS:
        raise TornLine(f"{where}: {len(columns)} columns, expected 6 or 10")
    image_id, count, boxes, features = (columns[i] for i in _LAYOUTS[len(columns)])
    if not 0 < len(image_id) <= MAX_ID:
        raise TornLine(f"{where}: an image id of {len(image_id)} bytes, expected 1 to {MAX_ID}")
    if not (count.isdigit() and len(count) < 7 and int(count)):
        raise TornLine(f"{where}: num_boxes is {count[:20]!r}, expected a number from 1")
    size = len(features) // 4 * 3 - features[-2:].count(b"=")
    if not size or len(features) % 4 or size % (int(count) * _FLOAT.itemsize):
        raise TornLine(f"{where}: {size} bytes are no float32 features of {count.decode()} boxes")
    try:
        return image_id.decode(), int(count), boxes, features
    except UnicodeDecodeError as error:
        raise TornLine(f"{where}: the image id is no UTF-8") from error


def _decode(text: bytes, count: int, where: str) -> np.ndarray:
    """Return (count, width) float32 from base64."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: not base64 ({error})") from error
    if not data or len(data) % (count * _FLOAT.itemsize):
        raise ValueError(f"{where}: {len(data)} bytes are no float32 rows of {count} boxes")
    return np.frombuffer(data, _FLOAT).reshape(count, -1)


def _index(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Return ids, byte offsets and counts of all lines, and what is wrong with lines left out."""
    found: dict[str, tuple[int, int]] = {}
    left_out = []
    bar = tqdm(
        total=os.stat(path).st_size,
        unit="B",
        unit_scale=True,
        desc=f"index of {path.name}",
        delay=1,
    )
    with open(path, "rb") as file, bar:
        offset = number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if line.strip():
                try:
                    image_id, count, _, _ = _fields(line, f"line {number}")
                except TornLine as error:
                    left_out.append(str(error))
                except ValueError as error:
                    raise ValueError(f"{path}, {error}") from error
                else:
                    if found.setdefault(image_id, (offset, count))[0] != offset:
                        where = f"{path}, line {number}: image {image_id!r}"
                        _refuse_other(file, found[image_id][0], line, where)
                        file.seek(offset + len(line))
            offset += len(line)
            bar.update(len(line))
    places = np.array(list(found.values()), dtype=np.int64).reshape(-1, 2)
    return list(found), places[:, 0], places[:, 1], left_out


def _refuse_other(file: BinaryIO, first: int, line: bytes, where: str) -> None:
    file.seek(first)
    if file.readline(MAX_LINE + 1).rstrip() != line.rstrip():
        raise ValueError(f"{where} a second time, with other features")
