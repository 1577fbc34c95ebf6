"""Seconds and memory of reading caption files to rows, each layout in a process of its own.

    python benchmarks/reading.py

Files are made up: as many images as Flickr8k's training split (7,000) and COCO (123,287) have, five
captions each. The first picture of each split is there, as much as reading looks for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

FLICKR8K, COCO, CAPTIONS = 7_000, 123_287, 5


def karpathy(folder: Path, images: int) -> None:
    """Write Karpathy's JSON, nine tenths of it training images."""
    entries = []
    for i in range(images):
        sentences = [
            {"raw": text, "sentid": CAPTIONS * i + k, "tokens": text.split()}
            for k, text in enumerate(captions(i))
        ]
        split = ("val", "test")[i % 2] if i % 10 == 0 else "train"
        entry = {"filename": name(i), "filepath": "images", "cocoid": i, "imgid": i, "split": split}
        entries.append({**entry, "sentences": sentences})
    (folder / "dataset_made.json").write_text(json.dumps({"images": entries}))


def coco(folder: Path, images: int) -> None:
    """Write COCO's captions of one split."""
    named = [{"id": i, "file_name": name(i), "height": 480, "width": 640} for i in range(images)]
    told = [
        {"image_id": i, "id": CAPTIONS * i + k, "caption": text}
        for i in range(images)
        for k, text in enumerate(captions(i))
    ]
    (folder / "annotations").mkdir()
    content = json.dumps({"images": named, "annotations": told})
    (folder / "annotations" / "captions_train2017.json").write_text(content)


def csv(folder: Path, images: int) -> None:
    """Write Kaggle's captions.txt of Flickr8k."""
    lines = [f'{name(i)},"{text}"\n' for i in range(images) for text in captions(i)]
    (folder / "captions.txt").write_text("image,caption\n" + "".join(lines))


def captions(image: int) -> Iterator[str]:
    """Yield five captions of an image."""
    for k in range(CAPTIONS):
        yield f"A person in coat {k} stands next to a dog, in place {image}, and looks around ."


def name(image: int) -> str:
    """Return the file name of an image."""
    return f"{image:012d}.jpg"


LAYOUTS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "Flickr8k, Karpathy's JSON": (karpathy, FLICKR8K),
    "Flickr8k, captions.txt": (csv, FLICKR8K),
    "COCO, dataset_coco.json": (karpathy, COCO),
    "COCO, captions_train2017.json": (coco, COCO),
}


def measure(folder: str) -> None:
    """Read a folder, and print rows, seconds and the peak memory above that of the imports."""
    from ascl_plugin.data.readers import read

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    rows = sum(map(len, read(folder).values()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{rows:,} | {wall:.1f} | {cpu:.1f} | {peak / 2**20:.2f} | {(peak - before) / 2**20:.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--read", metavar="FOLDER", help="measure one folder, in this process")
    args = parser.parse_args()
    if args.read:
        measure(args.read)
        return
    print("| layout | images | seconds | of the CPU | GiB at most | above the imports |")
    print("|---|---:|---:|---:|---:|---:|")
    for layout, (write, images) in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(folder, images)
            (folder / "images").mkdir()
            for i in range(min(images, 30)):
                (folder / "images" / name(i)).touch()
            done = subprocess.run(
                [sys.executable, __file__, "--read", temporary],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            print(f"| {layout} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
