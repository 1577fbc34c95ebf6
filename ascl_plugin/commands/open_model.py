"""Command options that name a trained model and a split, and opening both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import datasets

    from ascl_plugin.interfaces import NamedOptions
    from ascl_plugin.retrieval.evaluator import Evaluator
    from ascl_plugin.retrieval.model import RetrievalModel

TOWERS = ("open_clip:", "transformers:")  # models of other libraries, as they are


def add_model_options(command: argparse.ArgumentParser, optional: bool = False) -> None:
    """Add the options that `open_split` reads to a command.

    Args:
        command: its parser.
        optional: True if the command says itself what to do without a model.
    """
    command.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="RUN_DIR_OR_MODEL",
        help="folder of a run, or a model as save_pretrained wrote it; or, as they are, the towers "
        "of open_clip:MODEL,WEIGHTS or of transformers:ID_OR_FOLDER",
    )
    command.add_argument(
        "--data_root",
        type=Path,
        help="folder of the data (default: the data of the run)",
    )
    command.add_argument("--split", default="test", help="train, val or test (default: test)")
    command.add_argument(
        "--image_root", type=Path, help="folder of the image files, if not the data's own"
    )
    command.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out samples of tar files without picture or captions, and count them "
        "(default: as the run)",
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
        help="whole-image features to go with region files (default: the run's)",
    )
    command.add_argument(
        "--allow_import",
        action="store_true",
        help="import components that the model names by dotted path; this runs code, so only use "
        "it if you trust the source of the model",
    )
    command.add_argument(
        "--average_views",
        action=argparse.BooleanOptionalAction,
        help="score the mean of each image and its mirror image (default: as the run)",
    )
    command.add_argument("--batch_size", type=int, default=64, help="(default: %(default)s)")


class SavedModel(NamedTuple):
    """A trained model that is not loaded yet, and the options of its run, if any.

    Attributes:
        source: folder of the model; or ``open_clip:MODEL,WEIGHTS``, ``transformers:ID_OR_FOLDER``.
        options: options of the run; empty without one.
    """

    source: Path | str
    options: NamedOptions

    def load(self, allow_import: bool = False) -> RetrievalModel:
        """Return the model, in evaluation mode; towers of other libraries score by their cosine.

        Raises:
            OSError, ImportError, ValueError: as `RetrievalModel.from_pretrained` and `attach`.
        """
        from ascl_plugin.retrieval.model import RetrievalModel

        if isinstance(self.source, Path):
            return RetrievalModel.from_pretrained(self.source, allow_import=allow_import)
        library, _, name = self.source.partition(":")
        if library == "transformers":
            from ascl_plugin.adapters.towers import transformers_clip

            return transformers_clip.attach(name, fusion={"name": "pooled"}).eval()
        from ascl_plugin.adapters.towers import open_clip

        model, _, weights = name.partition(",")
        return open_clip.attach(model, weights or None, fusion={"name": "pooled"}).eval()

    @property
    def rerank_options(self) -> NamedOptions:
        """Options of `rerank`, unchecked: pass them through `without_labels`."""
        named = {k: v for k, v in self.options.items() if k.startswith("rerank_")}
        return {k.removeprefix("rerank_"): v for k, v in named.items()}


def find_run(model: str | Path) -> SavedModel:
    """Return the run in a folder, the model that `save_pretrained` wrote there, or other towers.

    Args:
        model: folder; or ``open_clip:MODEL,WEIGHTS``, ``transformers:ID_OR_FOLDER``.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: config.yaml is no yaml, holds no options, or is too large.
    """
    from ascl_plugin.yaml_file import read_yaml

    if str(model).startswith(TOWERS):
        return SavedModel(str(model), {})
    path = Path(model)
    folder = path / "best" if (path / "best").is_dir() else path
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{path}: no model here (no config.json, no best/config.json); `ascl train` makes one"
        )
    config = path / "config.yaml"
    options = read_yaml(config) if config.is_file() else {}
    if not isinstance(options, dict):
        raise ValueError(f"{config}: expected options, got {repr(options)[:80]}")
    return SavedModel(folder, options)


def open_split(
    args: argparse.Namespace, run: SavedModel, pictures: bool = False
) -> tuple[Evaluator, datasets.Dataset]:
    """Return an evaluator of a run's model, and the split, as the options in `args` say.

    `pictures` requires image files, also for a model that takes region files.
    """
    region_files = args.region_files or run.options.get("region_files")
    rows = _rows(args, run.options, pictures or region_files is None)
    evaluator = open_evaluator(args, run)
    texts = [caption for captions in rows["captions"][:] for caption in captions]
    evaluator.texts.say_unknown(texts, args.split)
    return evaluator, rows


def open_evaluator(args: argparse.Namespace, run: SavedModel) -> Evaluator:
    """Return an evaluator of a run's model, as the options in `args` say."""
    from ascl_plugin.retrieval.evaluator import Evaluator
    from ascl_plugin.retrieval.inputs import TextInputs, image_inputs

    region_files = args.region_files or run.options.get("region_files")
    pooled_files = args.pooled_files or run.options.get("pooled_files")
    average = args.average_views
    if average is None:
        average = run.options.get("average_views", False)
    if average and region_files is not None:
        raise ValueError("--average_views needs pictures: region files hold no mirror images")
    model = run.load(args.allow_import)
    return Evaluator(
        model,
        image_inputs(model.image_encoder, None, region_files, pooled_files),
        TextInputs(model.text_encoder, lexical=model.lexical_ids),
        args.batch_size,
        progress=True,
        average_views=bool(average),
    )


def _rows(args: argparse.Namespace, options: NamedOptions, pictures: bool) -> datasets.Dataset:
    """Return the split of `--data_root`, or else of the data that the run was trained on."""
    data_root = args.data_root or options.get("data_root")
    if data_root is None:
        from ascl_plugin.data import scenes

        size = options.get(f"scenes_{args.split}", 500)
        return scenes.make(args.split, size, options.get("scenes_seed", 0))
    from ascl_plugin.data.readers import require_splits

    try:
        splits = _read_as(args, options, data_root, pictures)
    except FileNotFoundError as error:
        if args.data_root is not None or Path(data_root).is_absolute():
            raise
        raise FileNotFoundError(
            f"{error}; {data_root} is of the run's config.yaml, relative to where it was trained: "
            "--data_root says where it is"
        ) from error
    return require_splits(splits, [args.split], data_root)[args.split]


def _read_as(
    args: argparse.Namespace, options: NamedOptions, data_root: str | Path, pictures: bool
) -> datasets.DatasetDict:
    from ascl_plugin.data.readers import read

    own = args.data_root is None
    return read(
        data_root,
        options.get("annotations") if own else None,
        args.image_root or (options.get("image_root") if own else None),
        pictures,
        options.get("val_fraction", 0.0) if own else 0.0,
        options.get("test_fraction", 0.0) if own else 0.0,
        args.skip_bad or (own and bool(options.get("skip_bad"))),
    )
