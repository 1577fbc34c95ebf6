"""``ascl convert``: region features from one file format to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_convert(commands: Any) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "convert",
        help="convert region features from one file format to another",
        description="Copy region features of images into another format, byte for byte. An "
        "interrupted conversion resumes when it is started again.",
    )
    command.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="X_ims.npy, .tsv, .h5, .hdf5, a folder of these, or a folder of one .npy or .npz "
        "per image",
    )
    command.add_argument("target", type=Path, metavar="TARGET", help="path that does not exist")
    command.add_argument(
        "--format",
        choices=["hdf5", "hdf5-images", "tsv", "scan", "folder"],
        help="(default: by TARGET's suffix; .h5 and .hdf5: hdf5; .tsv: tsv; X_ims.npy: scan; none: "
        "folder)",
    )
    command.add_argument(
        "--num_regions", type=int, metavar="K", help="first K regions of each image (default: all)"
    )
    command.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from ascl_plugin.adapters.regions.convert import convert

    written = convert(
        args.source, args.target, args.format, args.num_regions, lambda text: print(f"note: {text}")
    )
    print(f"wrote {args.target}, {written} images")
    return 0
