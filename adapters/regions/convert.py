"""Region features of any format packed into one HDF5 file; a stopped conversion resumes.

The file is laid out whole first, its numbers in one piece each, and filled through memory maps: its
structure is complete from the start, so a kill never damages it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.regions.reader import RegionReader
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.disk import into_place, write_text

with needs("h5py", "regions"):
    import h5py

SAVE_EVERY = 1.0  # seconds between notes of the images done


def convert(
    source: str | Path, target: str | Path, num_regions: int | None = None, progress: bool = True
) -> int:
    """Write the region features of `source` to the HDF5 file `target`, byte for byte.

    `features` (I, K, D), `bbox` (I, K, 4) where there are boxes, `num_bbx` (I,), `image_ids` (I,);
    images with fewer regions are padded with zeros. The file is written aside, as ``TARGET.part``
    with ``TARGET.part.json`` that counts the images done, and moved into place at the end. After a
    stop, the same call resumes.

    Args:
        source: file or folder that `open_regions` opens.
        target: file that does not exist yet, `.h5` or `.hdf5`.
        num_regions: maximum number of regions of an image, the first ones; None: all.
        progress: show a bar.

    Returns:
        The number of images written, without those of an earlier call.

    Raises:
        FileExistsError: the target exists, or the part of another conversion.
        ValueError: another suffix; a damaged source or part.
    """
    source, target = Path(source), Path(target)
    part, state = Path(f"{target}.part"), Path(f"{target}.part.json")
    if target.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"{target}: expected a name that ends with .h5 or .hdf5")
    if target.exists():
        raise FileExistsError(f"{target} is there already; choose another name or remove it")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder to write to")
    if num_regions is not None and num_regions < 1:
        raise ValueError(f"num_regions must be at least 1, got {num_regions}")

    reader = open_regions(source)
    entries = tqdm(range(len(reader)), desc="counting regions", disable=not progress, delay=1)
    counts = [min(reader.count(entry), num_regions or 2**31) for entry in entries]
    begun: dict[str, object] = {
        "source": str(source.absolute()), "changed": os.stat(source).st_mtime_ns,
        "num_regions": num_regions, "images": len(counts),
    }  # fmt: skip
    done = _done(part, state, begun)
    if not done:
        _lay_out(part, reader, counts)
    try:
        columns = _columns(part)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{part} is cut short or damaged ({error}); remove it and {state.name} to start again"
        ) from error
    entry, saved = done, time.monotonic()
    try:
        bar = tqdm(total=len(counts), initial=done, desc="converting", disable=not progress)
        with bar:
            while entry < len(counts):
                for column, values in zip(columns, reader.read(entry, num_regions), strict=False):
                    if values is not None:
                        column[entry, : len(values)] = values
                entry += 1
                bar.update()
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(state, begun, entry)
                    saved = time.monotonic()
    finally:
        _save(state, begun, entry)
    into_place(part, target)
    state.unlink()
    return entry - done


def _lay_out(part: Path, reader: RegionReader, counts: Sequence[int]) -> None:
    shape = len(counts), max(counts)
    with h5py.File(part, "w") as file:
        _contiguous(file, "features", (*shape, reader.dim), reader.dtype)
        if reader.has_boxes:
            _contiguous(file, "bbox", (*shape, 4), np.dtype(np.float32))
        file["num_bbx"] = np.array(counts, dtype=np.int64)
        file.create_dataset("image_ids", data=list(reader.ids), dtype=h5py.string_dtype())


def _columns(part: Path) -> list[np.memmap]:
    """Return maps of `features` and, if there, `bbox`, to write to."""
    with h5py.File(part, "r") as file:
        found = [file[name] for name in ("features", "bbox") if name in file]
        places = [(one.dtype, one.id.get_offset(), one.shape) for one in found]
    return [np.memmap(part, kind, "r+", offset, shape) for kind, offset, shape in places]


def _contiguous(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Make a data set in one piece: its place in the file is fixed, its numbers are zeros."""
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_layout(h5py.h5d.CONTIGUOUS)
    options.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    options.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    options.set_obj_track_times(False)  # the same bytes whatever the time
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, options)


def _done(part: Path, state: Path, begun: Mapping[str, object]) -> int:
    """Return the number of images that an earlier call of the same conversion finished."""
    if not state.exists():
        if part.exists():
            raise FileExistsError(f"{part} is there, {state.name} is not; remove it")
        return 0
    try:
        kept = json.loads(state.read_text())
        done = int(kept.pop("done"))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{state} is damaged; remove it and {part}") from error
    if kept != begun:
        raise FileExistsError(
            f"{part} was begun from {kept.get('source')} with other options, or that has changed; "
            f"remove it and {state.name}"
        )
    return done if part.exists() else 0


def _save(state: Path, begun: Mapping[str, object], done: int) -> None:
    write_text(state, json.dumps({**begun, "done": done}))
