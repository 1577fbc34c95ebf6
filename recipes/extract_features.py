"""Extracts frozen image features from pictures once: regions of a detector, a pooled feature.

    accelerate launch recipes/extract_features.py --data_root DIR \\
        --detector bottom_up --detector_options '{weights: FILE}' \\
        --pooled_model resnet152 --pooled_options '{weights: pretrained}'

writes DIR/regions and DIR/pooled, the folders that recipes/configs/coco_acf.yaml and its siblings
name: one file for each image, as `--region_files` and `--pooled_files` read them. `ascl convert`
makes one HDF5 file of each.

DIR holds anything `ascl_plugin.data.readers` reads; all its splits are taken. Without captions:
`--image_root DIR --output_dir OUT` takes all pictures below DIR, called by their paths there. Pairs
that no disk holds: `--stream 'shards/*.tar' --output_dir OUT` (webdataset's layout) or `--stream
user/name` reads them as they come, and writes captions into OUT/captions beside the features; then
train with `--data_root OUT/captions --region_files OUT/regions`.

Features: any number of processes; a run that was stopped goes on with what is not there yet, by the
same command; a picture that does not decode is named, or with `--skip_bad FILE` listed there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from tqdm import tqdm

from ascl_plugin import registry
from ascl_plugin.adapters.regions.extraction import DTYPES, FeatureFolder, extract
from ascl_plugin.adapters.regions.reader import normal_id
from ascl_plugin.data.caption_table import caption_table
from ascl_plugin.data.picture_folder import read_pictures
from ascl_plugin.data.readers import read
from ascl_plugin.data.rows import refuse_duplicates
from ascl_plugin.data.shards import Shards, StreamRow, windows
from ascl_plugin.disk import write_text
from ascl_plugin.threads import use_cores
from ascl_plugin.training.resolve import option_names
from ascl_plugin.yaml_file import mapping

WINDOW = 1024  # rows of a stream in memory at once


def main(argv: list[str] | None = None) -> int:
    """Run the recipe and return the exit status: 0, 130 if stopped, 2 after a user's error."""
    args = parser().parse_args(argv)
    try:
        return run(args)
    except (ValueError, KeyError, TypeError, OSError, ImportError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"error: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr, flush=True)
        return 130


def run(args: argparse.Namespace) -> int:
    """Extract features of all pictures; return the exit status."""
    use_cores(args.num_threads)
    # at the end ranks wait for the slowest
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    accelerator = Accelerator(cpu=args.cpu, kwargs_handlers=[patience])
    main_process = accelerator.is_main_process
    if args.stream is not None:
        bad, folders = run_stream(args, accelerator)
        return finish(args, accelerator, bad, folders)
    rows, out = find_rows(args)
    folders = make_folders(args, out, accelerator.device)

    ids = rows["image_id"][:]
    todo = [i for i, image_id in enumerate(ids) if any(image_id not in f for f in folders)]
    accelerator.wait_for_everyone()  # all ranks look before the first writes
    accelerator.print(
        f"{len(rows)} images, {len(rows) - len(todo)} of them done; "
        f"processes: {accelerator.num_processes}"
    )
    mine = rows.select(todo[accelerator.process_index :: accelerator.num_processes])
    bad = extract(
        mine, folders, args.batch_size, args.num_workers, args.skip_bad is not None, main_process
    )
    return finish(args, accelerator, bad, folders)


def run_stream(
    args: argparse.Namespace, accelerator: Accelerator
) -> tuple[list[str], list[FeatureFolder]]:
    """Extract features and captions of a stream, `WINDOW` rows at a time, each rank its share."""
    if args.output_dir is None:
        raise ValueError("--stream needs --output_dir")
    rank, world = accelerator.process_index, accelerator.num_processes
    out = Path(args.output_dir)
    shards = Shards(args.stream, args.split, args.skip_bad is not None)
    seen: dict[str, str] = {}
    rows = _of_one_key(shards.share(rank, world), seen)
    folders = make_folders(args, out, accelerator.device)
    accelerator.wait_for_everyone()  # all ranks look before the first writes
    bad = []
    name = f"{args.split}-{rank:05d}-of-{world:05d}.parquet"
    bar = tqdm(desc="extracting features", unit="image", disable=not accelerator.is_main_process)
    with caption_table(out / "captions" / name) as append, bar:
        for window in windows(rows, WINDOW):
            todo = [row for row in window if any(row["image_id"] not in f for f in folders)]
            bad += extract(
                todo, folders, args.batch_size, args.num_workers, args.skip_bad is not None, False
            )
            append(r for r in window if all(r["image_id"] in f for f in folders))
            bar.update(len(window))
    if world > 1:  # ranks know their own rows alone
        everyone: dict[str, str] = {}
        for image_id, path in gather_object(list(seen.items())):
            _refuse_other(everyone, image_id, path)
    if accelerator.is_main_process:  # of an earlier run with other processes
        for path in (out / "captions").glob(f"{args.split}-*-of-*.parquet"):
            if not path.stem.endswith(f"-of-{world:05d}"):
                path.unlink()
    return [*shards.skipped, *bad], folders


def _of_one_key(rows: Iterator[StreamRow], seen: dict[str, str]) -> Iterator[StreamRow]:
    """Yield rows, each of an id of its own: features are kept by id. `seen` takes its places."""
    for row in rows:
        _refuse_other(seen, row["image_id"], row["image"]["path"] or "a picture without a name")
        yield row


def _refuse_other(seen: dict[str, str], image_id: str, path: str) -> None:
    name = normal_id(image_id)
    if name in seen:
        raise ValueError(
            f"image id {image_id!r} is of two pictures, {seen[name]} and {path}: features are kept "
            "by id; rename one of the keys"
        )
    seen[name] = path


def finish(
    args: argparse.Namespace, accelerator: Accelerator, bad: list[str], folders: list[FeatureFolder]
) -> int:
    """Report the skipped pictures of all ranks and the folders of the features."""
    main_process = accelerator.is_main_process
    bad = list(dict.fromkeys(gather_object(bad)))  # each rank may read all shards
    if main_process and args.skip_bad is not None:
        write_text(Path(args.skip_bad), "".join(f"{line}\n" for line in bad))
        print(f"{len(bad)} pictures skipped, listed in {args.skip_bad}")
    accelerator.print("features in " + ", ".join(str(folder.folder) for folder in folders))
    accelerator.end_training()
    return 0


def find_rows(args: argparse.Namespace) -> tuple[datasets.Dataset, Path]:
    """Return `image_id` and `image` of every picture, and the parent of the folders."""
    if args.data_root is not None:
        bad = args.skip_bad is not None
        splits = read(args.data_root, args.annotations, args.image_root, skip_bad=bad)
        rows = datasets.concatenate_datasets(
            [split.select_columns(["image_id", "image"]) for split in splits.values()]
        )
        out = args.output_dir or args.data_root
    elif args.image_root is not None and args.output_dir is not None:
        rows = read_pictures(args.image_root).select_columns(["image_id", "image"])
        out = args.output_dir
    else:
        raise ValueError("give --data_root, or --image_root and --output_dir")
    ids = rows["image_id"][:]  # features are found by names that are alike but for a suffix
    refuse_duplicates(map(normal_id, ids), str(args.data_root or args.image_root), ids.__getitem__)
    return rows, Path(out)


def make_folders(args: argparse.Namespace, out: Path, device: torch.device) -> list[FeatureFolder]:
    """Return the folders to fill, each with its encoder."""
    wanted: list[tuple[str, str, dict[str, Any]]] = []
    if args.detector is not None:
        options = mapping(args.detector_options)
        names = option_names(registry.resolve("image_encoder", args.detector))
        if names is None or "num_regions" in names:
            options = {"num_regions": args.num_regions, **options}
        wanted.append(("regions", args.detector, options))
    if args.pooled_model is not None:
        options = {"model": args.pooled_model, **mapping(args.pooled_options)}
        wanted.append(("pooled", "resnet", options))
    if not wanted:
        raise ValueError("nothing to extract: give --detector, --pooled_model, or both")
    folders = []
    for name, encoder, options in wanted:
        torch.manual_seed(args.seed)  # random weights are the same on every rank
        built = registry.build("image_encoder", encoder, **options).to(device)
        folders.append(FeatureFolder(out / name, built, name == "pooled", args.dtype))
    return folders


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = words.add_argument
    add("--data_root", help="folder, Parquet file or hub id, with captions")
    add("--annotations", help="captions file, if data_root has several")
    add("--image_root", type=Path, help="folder of the pictures")
    add("--stream", help="streamed pictures: webdataset's tar files, 'shards/*.tar', or a hub id")
    add("--split", default="train", help="split of --stream (default: %(default)s)")
    add("--output_dir", help="parent of regions/ and pooled/ (default: data_root)")
    add("--detector", help="faster_rcnn, bottom_up, timm_grid, any image encoder or dotted path")
    add(
        "--num_regions",
        type=int,
        default=36,
        help="maximum regions of a picture (default: %(default)s)",
    )
    add("--detector_options", help="its options as yaml, e.g. '{weights: FILE}'")
    add("--pooled_model", help="a timm model, e.g. resnet152")
    add("--pooled_options", help="its options as yaml, e.g. '{weights: pretrained}'")
    add(
        "--dtype",
        default="float32",
        choices=DTYPES,
        help="type of the files (default: %(default)s)",
    )
    add("--batch_size", type=int, default=8, help="pictures at once (default: %(default)s)")
    add("--num_workers", type=int, default=0, help="number of data-loading processes per rank")
    add("--skip_bad", metavar="FILE", help="list pictures that do not decode, and go on")
    add("--seed", type=int, default=0, help="seed of random weights (default: %(default)s)")
    add("--cpu", action="store_true", help="use the CPU even if there is a GPU")
    add("--num_threads", type=int, default=0, help="number of CPU threads (0: cores / processes)")
    return words


if __name__ == "__main__":
    sys.exit(main())
