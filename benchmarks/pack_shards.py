"""Pack a training split into tar files in webdataset's layout, to stream from.

    python benchmarks/pack_shards.py DATA_ROOT OUT --shards 8 --images 2000

writes OUT/train-NUMBER.tar, whose pictures are the files byte for byte, and OUT/annotations.json in
Karpathy's layout, of the same images and the validation split: the same rows from files.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import webdataset

from ascl_plugin.data.readers import read


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_root")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="(default: %(default)s)")
    args = parser.parse_args()
    splits = read(args.data_root)
    train = splits["train"].select(range(args.images))
    args.out.mkdir(parents=True, exist_ok=True)
    for shard in range(args.shards):
        with webdataset.TarWriter(str(args.out / f"train-{shard:05d}.tar")) as tar:
            for row in train.select(range(shard, len(train), args.shards)):
                path = Path(row["image"]["path"])
                files = {path.suffix[1:]: path.read_bytes(), "json": {"captions": row["captions"]}}
                tar.write({"__key__": path.stem} | files)
    entries = [
        {
            "filename": os.path.relpath(row["image"]["path"], args.data_root),
            "split": row["split"],
            "sentences": [{"raw": caption} for caption in row["captions"]],
        }
        for row in (*train, *splits["val"])
    ]
    (args.out / "annotations.json").write_text(json.dumps({"images": entries}))


if __name__ == "__main__":
    main()
