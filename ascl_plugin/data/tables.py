"""Tables that `datasets` reads: Parquet, a folder of images with metadata, a hub id."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets.config import HF_DATASETS_CACHE as DATASETS_CACHE
from huggingface_hub.constants import HF_HUB_CACHE as HUB_CACHE

from ascl_plugin.data.dense_captions import DENSE, dense_texts
from ascl_plugin.data.listings import refuse_lists
from ascl_plugin.data.rows import (
    ROW,
    SPLITS,
    clean_captions,
    refuse_duplicates,
    refuse_link,
    refuse_outside,
    split_named,
    text_id,
)

#: Usual names of a column; the first that is present is taken.
IMAGE = ("image", "jpg", "png", "img", "picture")
CAPTIONS = ("captions", "caption", "sentences_raw", "sentences", "texts", "text")
IMAGE_ID = ("image_id", "img_id", "imgid", "cocoid", "id", "__key__", "filename", "file_name")
_NUMBERED = re.compile(r"(caption|sentence|text)_\d+")
_TAIL = 4096  # bytes at the end of an embedded image that tell it from others of its size
CAPTION_ID = ("caption_ids", "caption_id", "sentids", "sentid")


def read_table(
    source: str | Path, load: Callable[[str], datasets.Dataset] | None = None
) -> datasets.DatasetDict:
    """Read a Parquet file, a folder (Parquet, images with metadata) or a hub data set.

    Columns are found by their usual names: an image (or its path below the folder) in one of
    `IMAGE`, captions in one of `CAPTIONS`, ids in one of `IMAGE_ID` and `CAPTION_ID`. A column
    `dense_captions` (a text or a list of them) is kept. Rows with
    one caption instead of a list are joined by image id; without ids, by image file; embedded
    images without ids are not joined. A column ``split`` goes before the split of the file; without
    it a single Parquet file is ``train``.

    Args:
        source: a Parquet file, a folder, or a hub id ("user/name").
        load: function that opens the source, such as `datasets.load_from_disk`.

    Returns:
        Rows as `ascl_plugin.data.rows.ROW`, in the order of the source.

    Raises:
        FileNotFoundError: nothing to read there, or a hub that does not answer.
        KeyError: no column for images or captions.
        ValueError: a damaged file; captions that `clean_captions` refuses; an image id that occurs
            twice; an image path that leaves the folder, or does so by a link.
    """
    try:
        found: dict[str, list[datasets.Dataset]] = {}
        for theirs, table in _by_split(_opened(source, load), source).items():
            ours = split_named(theirs, str(source))
            found.setdefault(ours, []).append(_rows(table, ours, theirs, source))
        joined = {k: datasets.concatenate_datasets(found[k]) for k in SPLITS if k in found}
        for name, split in joined.items():
            refuse_duplicates(split["image_id"][:], f"{source}, split {name}")
        return datasets.DatasetDict(joined)
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise ValueError(f"{source} cannot be read: {error}") from error


def _opened(
    source: str | Path, load: Callable[[str], datasets.Dataset] | None
) -> datasets.DatasetDict:
    if load is None:
        return _load(source)
    try:
        found = load(str(source))
    except Exception as error:  # as each format fails in its own way
        raise ValueError(f"{source} cannot be read: {error}") from error
    return found if isinstance(found, datasets.DatasetDict) else {"train": found}


def _load(source: str | Path) -> datasets.DatasetDict:
    with _named(source):
        if Path(source).is_file():
            return datasets.load_dataset("parquet", data_files=str(source))
        if files := _parquet_of_clone(Path(source)):
            return datasets.load_dataset("parquet", data_files=files)
        builder = _builder(source)
    if Path(source).is_dir():
        _refuse_texts(builder, Path(source))
    with _named(source):
        builder.download_and_prepare()
        return builder.as_dataset()


@contextmanager
def _named(source: str | Path) -> Iterator[None]:
    """Raise errors of `datasets` with the name of the source."""
    try:
        yield
    except OSError as error:  # not found, nothing in it, or the hub out of reach
        raise FileNotFoundError(
            f"{source}: neither a folder or Parquet file with data in it, nor a data set that the "
            f"hub gives ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # each format fails in its own way
        raise ValueError(f"{source} cannot be read: {error.__cause__ or error}") from error


def _parquet_of_clone(root: Path) -> dict[str, list[str]]:
    """Return Parquet files by split, of a cloned hub repository with ``dataset_infos.json``.

    `datasets` casts to the features noted there, which may be those of another version.
    """
    found: dict[str, list[str]] = {}
    if (root / "dataset_infos.json").is_file():
        for path in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")]):
            name = path.stem.split("-")[0]
            known = any(name.lower() in theirs for theirs in SPLITS.values())
            found.setdefault(name if known else "train", []).append(str(path))
    return found


def _refuse_texts(builder: datasets.DatasetBuilder, root: Path) -> None:
    """Refuse what `datasets` would read of text files that are no list of pictures and captions.

    It takes the first cell of a row that has one too many for an index, and shifts the others.
    """
    kinds = {kind.__name__ for kind in type(builder).__mro__}
    if kinds & {"Csv", "Json", "Text", "ImageFolder"}:
        refuse_lists(root)
    if kinds & {"Csv", "Json", "Text"}:
        raise ValueError(
            f"{root}: its texts list no pictures and captions; where KEY.txt lies beside KEY.jpg, "
            f"`tar --sort=name -cf train.tar -C {root} .` makes a data root of them"
        )


def _builder(source: str | Path) -> datasets.DatasetBuilder:
    """Return the builder of a folder or hub data set, whose files lie below the folder.

    Its ``README.md`` may name files anywhere (``data_files``). Links are followed.
    """
    builder = datasets.load_dataset_builder(str(source))
    if os.path.isdir(source):
        root = os.path.abspath(source)
        for path in chain.from_iterable((builder.config.data_files or {}).values()):
            if os.path.commonpath([root, os.path.abspath(path)]) != root:
                raise ValueError(f"README.md names {path}, which is not below the folder")
    return builder


def _by_split(loaded: datasets.DatasetDict, source: str | Path) -> dict[str, datasets.Dataset]:
    """Return tables by the source's name of their split."""
    parts: dict[str, list[datasets.Dataset]] = {}
    for name, table in loaded.items():
        if "split" not in table.column_names:
            parts.setdefault(str(name), []).append(table)
            continue
        rows: dict[str, list[int]] = {}
        for row, named in enumerate(table["split"][:]):
            if not isinstance(named, str):
                raise ValueError(f"{source}: row {row}: split is {named!r}, expected a name")
            rows.setdefault(named, []).append(row)
        for named, those in rows.items():
            split_named(named, f"{source}: row {those[0]}")
            parts.setdefault(named, []).append(table.select(those))
    return {name: datasets.concatenate_datasets(tables) for name, tables in parts.items()}


def _rows(table: datasets.Dataset, split: str, theirs: str, source: str | Path) -> datasets.Dataset:
    """Return one table in our columns; embedded images stay in the file that brought them."""
    where = f"{source}, split {theirs}"
    image = _column(table, IMAGE, where, "images")
    captions, one_a_row = _captions(table, where)
    images = _images(table.select_columns([image]), image, source, where)
    ids = _image_ids(table, images, theirs, source)

    given = next((n for n in CAPTION_ID if n in table.column_names), None)
    caption_ids = table[given][:] if given else [None] * len(ids)
    first: dict[str, int] = {}
    texts: dict[str, list[object]] = {}
    numbers: dict[str, list[str]] = {}
    if not one_a_row:
        refuse_duplicates(ids, where)
    for row, image_id in enumerate(ids):
        first.setdefault(image_id, row)
        mine = texts.setdefault(image_id, [])
        named = _names(caption_ids[row], image_id, len(mine), len(captions[row]))
        numbers.setdefault(image_id, []).extend(named)
        # some tables hold each caption as {"raw": ..., "tokens": ...}
        mine += [c.get("raw") if isinstance(c, dict) else c for c in captions[row]]

    columns = {
        "image_id": list(first),
        "captions": [clean_captions(texts[i], f"{where}: image {i}") for i in first],
        "caption_ids": [numbers[i] for i in first],
        "split": [split] * len(first),
    }
    features = {name: ROW[name] for name in columns}
    kept = list(ROW)
    if DENSE in table.column_names:
        long: dict[str, list[str]] = {image_id: [] for image_id in first}
        for image_id, told in zip(ids, table[DENSE][:], strict=True):
            some = dense_texts(told, f"{where}: image {image_id}, {DENSE}")
            long[image_id] += [text for text in some if text not in long[image_id]]
        columns[DENSE] = list(long.values())
        features[DENSE] = ROW["captions"]
        kept.append(DENSE)
    _refuse_other_images(images, ids, first, where)
    words = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    if len(first) < len(images):
        images = images.select(list(first.values()))
    return datasets.concatenate_datasets([images, words], axis=1).select_columns(kept)


def _captions(table: datasets.Dataset, where: str) -> tuple[list[list[object]], bool]:
    """Return the captions of each row, and True if the table has one a row.

    They are in a column of `CAPTIONS`; else in caption_0, caption_1, ..., of which a row may have
    fewer.
    """
    numbered = [name for name in table.column_names if _NUMBERED.fullmatch(name)]
    if numbered and not any(name in table.column_names for name in CAPTIONS):
        numbered.sort(key=lambda name: int(name.rpartition("_")[2]))
        columns = [table[name][:] for name in numbered]
        return [
            [c for c in row if c not in (None, "")] for row in zip(*columns, strict=True)
        ], False
    column = _column(
        table, CAPTIONS, where, "captions",
        "; `ascl demo MODEL --image_root DIR` and `Gallery` take pictures without captions",
    )  # fmt: skip
    one_a_row = not isinstance(table.features[column], (datasets.List, datasets.LargeList))
    return [[c] if one_a_row else c or [] for c in table[column][:]], one_a_row


def _refuse_other_images(
    images: datasets.Dataset, ids: Sequence[str], first: dict[str, int], where: str
) -> None:
    """Refuse rows that are joined by their id and hold different images.

    Images are the same if their paths are or, embedded, their sizes and last bytes.

    Raises:
        ValueError: the message names the id and both rows.
    """
    if len(first) == len(ids):
        return
    cells = images.data.column("image")  # of a selection, the whole that it is of
    rows = range(len(ids)) if images._indices is None else images._indices.column(0).to_pylist()
    known: dict[str, object] = {}
    for row, image_id in enumerate(ids):
        cell = cells[rows[row]]
        content = cell["bytes"].as_buffer()
        mine: object = cell["path"].as_py()
        if content is not None:
            mine = content.size, content.slice(max(0, content.size - _TAIL)).to_pybytes()
        if known.setdefault(image_id, mine) != mine:
            raise ValueError(
                f"{where}: rows {first[image_id]} and {row} have one id, {image_id!r}, and "
                "different images"
            )


def _column(
    table: datasets.Dataset, names: Sequence[str], where: str, what: str, cure: str = ""
) -> str:
    for name in names:
        if name in table.column_names:
            return name
    raise KeyError(
        f"{where}: no column for {what}; it has {', '.join(table.column_names)}, "
        f"expected one of {', '.join(names)}{cure}"
    )


def _images(
    table: datasets.Dataset, column: str, source: str | Path, where: str
) -> datasets.Dataset:
    """Return the one column "image", undecoded; paths are resolved below the source."""
    if table.features[column] in (datasets.Value("string"), datasets.Value("large_string")):
        root = Path(source) if Path(source).is_dir() else Path(source).parent
        cells = []
        for row, name in enumerate(table[column][:]):
            refuse_link(root, refuse_outside(name, f"{where}: row {row}"), f"{where}: row {row}")
            cells.append({"path": os.path.abspath(root / name), "bytes": None})
        features = datasets.Features({"image": ROW["image"]})
        return datasets.Dataset.from_dict({"image": cells}, features=features)
    named = table if column == "image" else table.rename_column(column, "image")
    try:
        images = named.cast_column("image", ROW["image"])
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(
            f"{where}: column {column!r} holds {table.features[column]}, no images nor their paths"
        ) from error
    _refuse_files_outside(images, source, where)
    return images


def _refuse_files_outside(images: datasets.Dataset, source: str | Path, where: str) -> None:
    """Refuse paths in place of images that lead out of the source, or out of the hub's caches."""
    roots = [DATASETS_CACHE, HUB_CACHE]
    if os.path.exists(source):
        roots = [source if os.path.isdir(source) else Path(source).parent]
    roots = [os.path.realpath(root) for root in roots]
    for chunk in images.data.column("image").chunks:
        embedded = pc.is_valid(pc.struct_field(chunk, "bytes"))
        paths = pc.filter(pc.struct_field(chunk, "path"), pc.invert(embedded)).drop_null()
        for path in paths.to_pylist():
            if "\0" in path:
                raise ValueError(f"{where}: path {path!r} has a NUL in it")
            real = os.path.realpath(path)
            if not any(os.path.commonpath([root, real]) == root for root in roots):
                raise ValueError(f"{where}: path {path!r} leaves the data root, to {real}")


def _image_ids(
    table: datasets.Dataset, images: datasets.Dataset, theirs: str, source: str | Path
) -> list[str]:
    """Return the id column; else paths below the source; else row numbers."""
    for name in IMAGE_ID:
        if name in table.column_names:
            values, where = table[name][:], f"{source}, split {theirs}, {name} of row"
            if any(value is not None for value in values):
                return [text_id(value, f"{where} {row}") for row, value in enumerate(values)]
    # the path of an embedded image is the name it once had, and many may have had the same
    if len(images) and images[0]["image"]["bytes"] is None:
        return [os.path.relpath(cell["path"], source) for cell in images["image"][:]]
    return [f"{theirs}-{row}" for row in range(len(images))]


def _names(given: object, image_id: str, start: int, count: int) -> list[str]:
    """Return ids of the captions of one row."""
    listed = given if isinstance(given, list) else [given]
    if given is None or len(listed) != count:
        return [f"{image_id}#{start + i}" for i in range(count)]
    own = [f"{image_id}#{start + i}" for i in range(count)]
    return [
        name if value is None or value != value else text_id(value, f"caption of image {image_id}")
        for value, name in zip(listed, own, strict=True)
    ]
