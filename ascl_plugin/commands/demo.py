"""``ascl demo``: a trained model on a local page."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from ascl_plugin.commands.open_model import add_model_options, find_run, open_evaluator, open_split


def add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "demo",
        description="Search pictures by words and captions by picture, before and after "
        "re-ranking, and see the attention between regions and words. --image_root without "
        "--data_root searches all pictures of a folder, which need no captions. The page is served "
        "to this machine only, at 127.0.0.1.",
    )
    add_model_options(command, optional=True)
    command.add_argument(
        "--limit",
        type=int,
        default=1000,
        metavar="IMAGES",
        help="maximum number of images, the first of the split; all are held in memory "
        "(default: %(default)s)",
    )
    command.add_argument("--port", type=int, default=8765, help="(default: %(default)s)")
    command.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    if args.model is None:
        raise ValueError(
            "a demo needs a model: the folder of a run (`ascl train` makes runs/train-1), or "
            "towers, as in `ascl demo open_clip:MODEL,WEIGHTS --image_root PHOTOS`"
        )
    if args.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {args.limit}")
    if args.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {args.batch_size}")
    if not 0 <= args.port < 2**16:
        raise ValueError(f"--port must be from 0 to 65535, got {args.port}")
    from ascl_plugin.data.picture_folder import read_pictures
    from ascl_plugin.demo.gallery import Gallery
    from ascl_plugin.demo.pages import make_app
    from ascl_plugin.demo.server import serve
    from ascl_plugin.retrieval.evaluator import without_labels

    run = find_run(args.model)
    rerank_options = without_labels(run.rerank_options, oracle=False)
    if rerank_options.get("k") == 0:  # trained without re-ranking: one candidate moves nothing
        rerank_options = {**rerank_options, "k": 1}
    with listen(args.port) as listener:  # before the work of encoding
        if args.image_root is not None and args.data_root is None:
            what, rows = str(args.image_root), read_pictures(args.image_root)
            evaluator = open_evaluator(args, run)
        else:
            what = f"{args.split} split"
            evaluator, rows = open_split(args, run, pictures=True)
        if len(rows) > args.limit:
            print(f"the first {args.limit:,} of {len(rows):,} images; --limit takes more")
        rows = rows.select(range(min(args.limit, len(rows))))
        gallery = Gallery(evaluator, rows, rerank_options)
        app = make_app(gallery, f"{Path(args.model).resolve().name}, {what}")
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        serve(app, listener)
    return 0


def listen(port: int) -> socket.socket:
    """Return a socket that only this machine can reach; port 0 is any free one.

    Raises:
        OSError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise OSError(f"--port {port}: {error.strerror}; --port 0 takes a free one") from error
