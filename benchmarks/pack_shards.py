"""A training split as tar files in webdataset's layout, to stream from.

    python benchmarks/pack_shards.py DATA_ROOT OUT --shards 8 --images 2000

writes OUT/train-NUMBER.tar, whose pictures are those files byte for byte, and OUT/annotations.json,
Karpathy's, of the same images and the validation split: the same rows from files.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

from ascl_plugin.data.readers import read


def main(argv: list[str] | None = None) -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    splits = read(args.data_root)
    train = splits["train"].select(range(args.images))
    args.out.mkdir(parents=True, exist_ok=True)
    for shard in range(args.shards):
        with tarfile.open(args.out / f"train-{shard:05d}.tar", "w") as tar:
            for row in train.select(range(shard, len(train), args.shards)):
                name, extension = os.path.splitext(os.path.basename(row["image"]["path"]))
                add(tar, f"{name}{extension}", Path(row["image"]["path"]).read_bytes())
                add(tar, f"{name}.json", json.dumps({"captions": row["captions"]}).encode())
    entries = [entry(row, args.data_root) for rows in (train, splits["val"]) for row in rows]
    (args.out / "annotations.json").write_text(json.dumps({"images": entries}))
    return 0


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One file more."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def entry(row: dict[str, Any], root: str) -> dict[str, Any]:
    """An image in Karpathy's layout."""
    sentences = [{"raw": caption} for caption in row["captions"]]
    path = os.path.relpath(row["image"]["path"], root)
    return {"filename": path, "split": row["split"], "sentences": sentences}


if __name__ == "__main__":
    sys.exit(main())
