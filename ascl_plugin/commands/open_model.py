"""A trained model and a split for it, as a command's options name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


def add_model_options(command: Any) -> None:
    """Add the options that `open_split` reads to an argparse command."""
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
    command.add_argument(
        "--allow_import",
        action="store_true",
        help="import components that the model names by dotted path: runs code, of a source you "
        "trust alone",
    )
    command.add_argument("--batch_size", type=int, default=64, help="(default: %(default)s)")


class Run(NamedTuple):
    """What is known of a run before anything of it is loaded.

    Attributes:
        folder: of the model.
        options: every option the run was trained with; none of a model without a run.
    """

    folder: Path
    options: dict[str, Any]

    @property
    def rerank_options(self) -> dict[str, Any]:
        """Those of `rerank`, as they stand there: look at them through `without_labels`."""
        named = {k: v for k, v in self.options.items() if k.startswith("rerank_")}
        return {k.removeprefix("rerank_"): v for k, v in named.items()}


def find_run(model: str | Path) -> Run:
    """The run in a folder, or the model that `save_pretrained` wrote there.

    Raises:
        FileNotFoundError: neither.
        ValueError: config.yaml is no yaml, or too large to be one.
    """
    from ascl_plugin.yaml_file import read_yaml

    path = Path(model)
    folder = path / "best" if (path / "best").is_dir() else path
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path}: no model here (no config.json, no best/config.json)")
    config = path / "config.yaml"
    return Run(folder, read_yaml(config) if config.is_file() else {})


def open_split(args: Any, run: Run, pictures: bool = False) -> tuple[Any, Any]:
    """The model of a run, and the split asked for.

    Args:
        args: what the options of `add_model_options` were parsed to.
        run: as `find_run` found it.
        pictures: image files must be there, also for a model that takes region files.

    Returns:
        evaluator: an `Evaluator` with bars, of the model in evaluation mode.
        rows: the split.

    Raises:
        FileNotFoundError: no such data.
        ValueError: no such split; what `image_inputs` raises.
    """
    from ascl_plugin.retrieval.evaluator import Evaluator
    from ascl_plugin.retrieval.inputs import TextInputs, image_inputs
    from ascl_plugin.retrieval.model import RetrievalModel

    model = RetrievalModel.from_pretrained(str(run.folder)).eval()
    region_files = args.region_files or run.options.get("region_files")
    pooled_files = args.pooled_files or run.options.get("pooled_files")
    rows = _rows(args, run.options, pictures or region_files is None)
    evaluator = Evaluator(
        model,
        image_inputs(model.image_encoder, None, region_files, pooled_files),
        TextInputs(model.text_encoder),
        args.batch_size,
        progress=True,
    )
    return evaluator, rows


def _rows(args: Any, options: dict[str, Any], pictures: bool) -> Any:
    """The split asked for, of `--data_root`, else of what the run was trained on."""
    data_root = args.data_root or options.get("data_root")
    if data_root is None:
        from ascl_plugin.data import scenes

        size = options.get(f"scenes_{args.split}", 500)
        return scenes.make(args.split, size, options.get("scenes_seed", 0))
    from ascl_plugin.data.readers import read, require_splits

    own = args.data_root is None
    splits = read(
        data_root,
        options.get("annotations") if own else None,
        args.image_root or (options.get("image_root") if own else None),
        pictures,
    )
    return require_splits(splits, [args.split], data_root)[args.split]
