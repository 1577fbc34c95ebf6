"""``ascl convert``: region features of any format packed into one file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_convert(commands: Any) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "convert",
        description="Copy region features of images into one HDF5 file, byte for byte. An "
        "interrupted conversion resumes when it is started again.",
    )
    command.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="X_ims.npy, .tsv, .h5, .hdf5, a folder of these, or a folder of one .npy or .npz "
        "per image",
    )
    command.add_argument("target", type=Path, metavar="TARGET.h5", help="file that does not exist")
    command.add_argument(
        "--num_regions", type=int, metavar="K", help="first K regions of each image (default: all)"
    )
    command.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from ascl_plugin.adapters.regions.convert import convert

    written = convert(args.source, args.target, args.num_regions)
    print(f"wrote {args.target}, {written} images")
    return 0
