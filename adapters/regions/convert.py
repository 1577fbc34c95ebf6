"""Region features from one format to another, byte for byte; a stopped conversion resumes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from ascl_plugin.adapters.regions.npy import FolderWriter, ScanWriter
from ascl_plugin.adapters.regions.reader import Plan, RegionReader, RegionWriter
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.adapters.regions.tsv import TsvWriter
from ascl_plugin.data.scan_layout import IDS, IMAGES
from ascl_plugin.disk import into_place, write_text

FORMATS = ("hdf5", "hdf5-images", "tsv", "scan", "folder")
SAVE_EVERY = 1.0  # seconds between notes of the images done
_BY_SUFFIX = {".h5": "hdf5", ".hdf5": "hdf5", ".tsv": "tsv", "": "folder"}


def convert(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    num_regions: int | None = None,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> int:
    """Write the region features of `source` to `target`.

    The target is written aside, as ``TARGET.part`` with ``TARGET.part.json`` that counts the images
    done, and moved into place at the end. After a stop, the same call resumes.

    Args:
        source: file or folder that `open_regions` opens.
        target: file or folder that does not exist yet.
        format: one of `FORMATS`; by default the name decides: `.h5` and `.hdf5`: hdf5, `.tsv`,
            `X_ims.npy`: scan, no suffix: folder.
        num_regions: maximum number of regions of an image, the first ones; None: all.
        say: called with a note for everything that the format leaves out.
        progress: show a bar.

    Returns:
        The number of images written, without those of an earlier call.

    Raises:
        FileExistsError: the target exists, or the part of another conversion.
        ValueError: a format that cannot hold the features; a damaged source.
    """
    source, target = Path(source), Path(target)
    kind = _format(format, target)
    part, state = Path(f"{target}.part"), Path(f"{target}.part.json")
    id_file = target.with_name(target.name.removesuffix(IMAGES) + IDS) if kind == "scan" else None
    for path in filter(None, (target, id_file)):
        if path.exists() and not (path == id_file and state.exists()):  # killed just before the end
            raise FileExistsError(f"{path} is there already; choose another name or remove it")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder to write to")

    reader = open_regions(source)
    plan = _plan(reader, num_regions, progress)
    for note in _notes(reader, plan, kind):
        say(note)
    begun: dict[str, object] = {
        "source": str(source.absolute()), "changed": os.stat(source).st_mtime_ns,
        "format": kind, "num_regions": num_regions, "images": len(plan.ids),
    }  # fmt: skip
    done = _done(part, state, begun)
    try:
        writer = _writer(kind)(part, plan, done)
    except (ValueError, OSError) as error:
        if not done:
            raise
        raise ValueError(
            f"{part} is cut short or damaged ({error}); remove it and {state.name} to start again"
        ) from error
    entry, saved = done, time.monotonic()
    try:
        bar = tqdm(total=len(plan.ids), initial=done, desc="converting", disable=not progress)
        with bar:
            while entry < len(plan.ids):
                writer.write(entry, reader.read(entry, num_regions))
                entry += 1
                bar.update()
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(state, begun, entry)
                    saved = time.monotonic()
    finally:
        _save(state, begun, entry)
    if id_file is not None:
        write_text(id_file, "".join(f"{image_id}\n" for image_id in plan.ids))
    into_place(part, target)
    state.unlink()
    return entry - done


def _format(format: str | None, target: Path) -> str:
    scan = target.name.endswith(IMAGES)
    kind = format or ("scan" if scan else _BY_SUFFIX.get(target.suffix))
    if kind is None:
        raise ValueError(f"{target}: the suffix tells no format; --format says it")
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if kind == "scan" and not scan:
        raise ValueError(f"{target}: the name of a scan file ends with {IMAGES}")
    return kind


def _plan(reader: RegionReader, num_regions: int | None, progress: bool) -> Plan:
    if num_regions is not None and num_regions < 1:
        raise ValueError(f"num_regions must be at least 1, got {num_regions}")
    entries = tqdm(range(len(reader)), desc="counting regions", disable=not progress, delay=1)
    counts = [min(reader.count(entry), num_regions or 2**31) for entry in entries]
    return Plan(list(reader.ids), counts, reader.dim, reader.dtype, reader.has_boxes)


def _notes(reader: RegionReader, plan: Plan, kind: str) -> list[str]:
    """Return what the format leaves out or changes."""
    notes = []
    if plan.has_boxes and kind == "scan":
        notes.append("scan holds no boxes: they are left out")
    if kind == "tsv":
        if not plan.has_boxes:
            notes.append(f"{reader.path} has no boxes: that column stays empty")
        notes.append("widths and heights of the pictures are not known here: tsv gets 0")
        if plan.dtype.itemsize < 4:
            notes.append(f"tsv holds float32: {plan.dtype} is widened, no value changes")
    return notes


def _writer(kind: str) -> type[RegionWriter]:
    if kind.startswith("hdf5"):
        from ascl_plugin.adapters.regions.hdf5 import Hdf5ImagesWriter, Hdf5Writer

        return Hdf5Writer if kind == "hdf5" else Hdf5ImagesWriter
    return {"tsv": TsvWriter, "scan": ScanWriter, "folder": FolderWriter}[kind]


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
