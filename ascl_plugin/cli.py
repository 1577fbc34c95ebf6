"""The command ``ascl``: one sub-command for each thing one does without writing Python."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ascl_plugin import registry
from ascl_plugin._version import __version__
from ascl_plugin.report.tables import markdown_table, results_table
from ascl_plugin.rerank import rerank
from ascl_plugin.rerank.files import (
    SUFFIXES,
    check_suffix,
    read_array,
    read_caption_to_image,
    write_reranked,
)
from ascl_plugin.rerank.methods import METHODS
from ascl_plugin.rerank.similarity import Array, as_tensor, check_scores
from ascl_plugin.retrieval.metrics import retrieval_metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``ascl``; None: those of the process.

    Returns:
        0, or 2 after a user's error, of which one line is written to stderr. A wrong option leaves
        through argparse's SystemExit, with code 2 as well.
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, TypeError, KeyError, OSError, ImportError) as error:
        print(f"ascl: error: {_one_line(error)}", file=sys.stderr)
        return 2


def _components(args: argparse.Namespace) -> int:
    rows = [
        {"kind": kind, "names": ", ".join(registry.available(kind))} for kind in registry.kinds()
    ]
    print(markdown_table(rows))
    return 0


def _rerank(args: argparse.Namespace) -> int:
    output = args.output or args.sims.with_suffix(f".reranked{args.sims.suffix}")
    check_suffix(output)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder to write to")
    sim = _read_scores(args.sims, "sim", "(images, texts)")
    options: dict[str, Any] = {
        name: getattr(args, name) for name in ("k", "reverse_k", "text_neighbors", "method")
    }
    if args.text_embeddings:
        options["text_embeddings"] = _read_scores(
            args.text_embeddings, "text_embeddings", "(texts, width)"
        )
    owners = _pairing(args, sim)
    # before the work of re-ranking, for this is where a wrong pairing is found
    before = None if owners is None else retrieval_metrics(sim, owners)
    result = rerank(sim, **options)
    for path in write_reranked(output, {"i2t": result.i2t, "t2i": result.t2i}):
        print(f"wrote {path}")
    if owners is not None and before is not None:
        after = retrieval_metrics(result.i2t, owners, t2i=result.t2i)
        print(results_table({"before": before, "after": after}))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from ascl_plugin.retrieval.evaluation import evaluate_command

    return evaluate_command(args)


def _convert(args: argparse.Namespace) -> int:
    from ascl_plugin.adapters.convert import convert

    written = convert(
        args.source, args.target, args.format, args.num_regions, lambda text: print(f"note: {text}")
    )
    print(f"wrote {args.target}, {written} images")
    return 0


def _read_scores(path: Path, key: str, axes: str) -> Array:
    """Array `key` of a file, checked here so that messages name the file."""
    values = read_array(path, key)
    check_scores(as_tensor(values, str(path), axes), str(path))
    return values


def _pairing(args: argparse.Namespace, sim: Array) -> np.ndarray | None:
    images, texts = sim.shape
    if args.captions_per_image is not None:
        if args.captions_per_image * images != texts:
            raise ValueError(
                f"--captions_per_image {args.captions_per_image}: {args.sims} has {images} images "
                f"and {texts} texts; give --caption_to_image where counts differ"
            )
        return np.arange(texts) // args.captions_per_image
    if args.caption_to_image is not None:
        return read_caption_to_image(args.caption_to_image)
    return None


def _one_line(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:  # str() of it is a repr
        return " ".join(str(error.args[0]).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascl", description="Asymmetry-sensitive image-text retrieval."
    )
    parser.add_argument("--version", action="version", version=f"ascl {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    components = commands.add_parser(
        "components", help="list every registered component", description="List the components."
    )
    components.set_defaults(run=_components)
    _add_rerank(commands)
    _add_evaluate(commands)
    _add_convert(commands)
    return parser


def _add_rerank(commands: Any) -> None:
    default = {name: p.default for name, p in inspect.signature(rerank).parameters.items()}
    formats = ", ".join(SUFFIXES)
    command = commands.add_parser(
        "rerank",
        help="re-rank a similarity matrix in a file",
        description="Re-rank both directions of a similarity matrix (images, texts), from the "
        "scores alone. npz and safetensors results hold the arrays i2t and t2i; for npy there are "
        "two files, OUT.i2t.npy and OUT.t2i.npy. With a pairing, recall before and after is "
        "printed.",
    )
    command.add_argument(
        "sims",
        type=Path,
        metavar="SIMS",
        help=f"{formats}: the one array in it, or the one named 'sim'",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="its suffix decides the format (default: SIMS with .reranked before the suffix)",
    )
    command.add_argument(
        "--k",
        type=int,
        default=default["k"],
        help="first results of each query to reorder (default: %(default)s)",
    )
    command.add_argument(
        "--reverse_k",
        type=int,
        default=default["reverse_k"],
        help="positions from this one on count as equal (default: no limit)",
    )
    command.add_argument(
        "--text_neighbors",
        type=int,
        default=default["text_neighbors"],
        help="texts that speak for a text, itself included (default: %(default)s)",
    )
    command.add_argument(
        "--text_embeddings",
        type=Path,
        metavar="FILE",
        help=f"{formats} with (texts, width) vectors that say which texts are neighbours",
    )
    command.add_argument(
        "--method",
        choices=sorted(METHODS),
        default=default["method"],
        help="(default: %(default)s)",
    )
    pairing = command.add_mutually_exclusive_group()
    pairing.add_argument(
        "--caption_to_image",
        type=Path,
        metavar="FILE",
        help="image index of each caption: npy, a JSON list, or text with one integer a line",
    )
    pairing.add_argument(
        "--captions_per_image",
        type=int,
        metavar="N",
        help="captions 0 to N-1 belong to image 0, the next N to image 1, ...",
    )
    command.set_defaults(run=_rerank)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="recall of a trained model on a split",
        description="Score a split with a trained model and print its recall.",
    )
    command.add_argument(
        "model",
        metavar="RUN_DIR_OR_MODEL",
        help="folder of a run, or a model as save_pretrained wrote it",
    )
    command.add_argument(
        "--data_root", type=Path, help="folder of the data (default: what the run was trained on)"
    )
    command.add_argument("--split", default="test", help="(default: %(default)s)")
    command.add_argument(
        "--image_root", type=Path, help="folder of the image files, where it is not in the data's"
    )
    command.add_argument(
        "--region_files",
        type=Path,
        metavar="PATH",
        help="file or folder of region features (default: the run's)",
    )
    command.add_argument(
        "--pooled_files",
        type=Path,
        metavar="PATH",
        help="with region files: whole-image features (default: the run's)",
    )
    command.add_argument("--batch_size", type=int, default=64, help="(default: %(default)s)")
    command.add_argument(
        "--rerank",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also after re-ranking (default: yes)",
    )
    command.add_argument(
        "--oracle",
        action="store_true",
        help="also after re-ranking with the labels as neighbours of a text: no method, a leak, to "
        "reproduce published tables; its row says so",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="also write the metrics here")
    command.set_defaults(run=_evaluate)


def _add_convert(commands: Any) -> None:
    command = commands.add_parser(
        "convert",
        help="region features from one file format to another",
        description="Copy region features of images into another format, byte for byte. Stopped "
        "and started again, it goes on where it was.",
    )
    command.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="X_ims.npy, .tsv, .h5, .hdf5, a folder of these, or one of .npy or .npz an image",
    )
    command.add_argument("target", type=Path, metavar="TARGET", help="a name that is still free")
    command.add_argument(
        "--format",
        choices=["hdf5", "hdf5-images", "tsv", "scan", "folder"],
        help="(default: as TARGET is called: .h5 or .hdf5: hdf5; .tsv; X_ims.npy: scan; no suffix: "
        "folder)",
    )
    command.add_argument(
        "--num_regions", type=int, metavar="K", help="the first K regions of each (default: all)"
    )
    command.set_defaults(run=_convert)


if __name__ == "__main__":
    sys.exit(main())
