"""A study at work: trained models opened for measuring, finished cells kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.experiments.plan import EXPERIMENTS, Plan, load
from ascl_plugin.experiments.results import Result, write_result
from ascl_plugin.experiments.runs import Runs
from ascl_plugin.report.metrics_file import write_json
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import TextInputs, image_inputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.setup import find_files, load_splits
from ascl_plugin.yaml_file import read_yaml


@dataclass(frozen=True)
class Trained:
    """A trained model on the split of the study.

    Attributes:
        folder: of the run.
        options: every option of it.
        metrics: its `metrics.json`.
        model: in evaluation mode.
        evaluator: encodes and scores rows and texts with it.
        rows: the split.
        texts: its captions (T).
        caption_to_image: (T,) row of each.
        sim: (I, T) scores of all of them, mapped from disk.
    """

    folder: Path
    options: dict[str, Any]
    metrics: dict[str, Any]
    model: RetrievalModel
    evaluator: Evaluator
    rows: Any
    texts: list[str]
    caption_to_image: np.ndarray
    sim: Tensor


class Study:
    """What experiments are handed: models by name and seed, and a place for what they find.

    Args:
        plan: of the study.
        folder: of all that is made.
        jobs: runs trained at the same time.
        command: what started the study, for its results.
    """

    def __init__(
        self, plan: Plan, folder: str | Path, jobs: int = 1, command: str = "ascl experiment"
    ) -> None:
        self.plan = plan
        self.command = command
        self.folder = Path(folder)
        self.seeds = plan.seeds
        self.split = plan.split
        self.models = plan.models
        self.runs = Runs(plan, self.folder / "runs", jobs)

    def run(self, experiment: str) -> Result:
        """Runs one experiment and writes its result."""
        settings = self.plan.experiments.get(experiment, {})
        result = load(experiment)(self, settings)
        made_by = {
            "experiment": experiment,
            "place": EXPERIMENTS.index(experiment),
            "command": self.command,
            "seeds": self.seeds,
            "split": self.split,
        }
        write_result(self.folder / experiment, result, made_by)
        return result

    def metrics(self, model: str, seed: int) -> dict[str, Any]:
        """`metrics.json` of a model, trained if need be."""
        self.runs.train([(model, seed)])
        return self.runs.metrics(model, seed)

    def trained(self, model: str, seed: int) -> Trained:
        """A model and its scores, trained if need be."""
        metrics = self.metrics(model, seed)
        folder = self.runs.path(model, seed)
        options = read_yaml(folder / "config.yaml")
        # the plan named its components, so they have been imported to train it
        loaded = RetrievalModel.from_pretrained(str(folder / "best"), allow_import=True).eval()
        loaded.to("cuda" if torch.cuda.is_available() and not options["cpu"] else "cpu")
        cache = Path(options["cache_dir"]).expanduser() if options["cache_images"] else None
        files = options["region_files"], options["pooled_files"]
        images = image_inputs(loaded.image_encoder, cache, *files)
        rows = self.rows()
        images.prepare(rows, options["eval_batch_size"], progress=True)
        evaluator = Evaluator(
            loaded, images, TextInputs(loaded.text_encoder), options["eval_batch_size"]
        )
        texts, owners = caption_to_image(rows)
        scores = np.load(folder / f"scores_{self.split}.npy", mmap_mode="c", allow_pickle=False)
        sim = torch.from_numpy(scores)
        return Trained(folder, options, metrics, loaded, evaluator, rows, texts, owners, sim)

    def rows(self) -> Any:
        """The split, with nothing trained."""
        return self._splits[self.split]

    @cached_property
    def _splits(self) -> Any:
        name = next(iter(self.models))
        given = [
            f"--{k}={v}" for k, v in self.runs.options(name, self.seeds[0]).items() if v is not None
        ]
        options = parse_options(given)
        find_files(options)
        splits = load_splits(options)
        if self.split not in splits:
            raise ValueError(f"no split {self.split}; there are {', '.join(splits)}")
        return splits

    def cell(self, experiment: str, key: str, make: Callable[[], Any]) -> Any:
        """The JSON value of `make()`, made once for these settings of the experiment."""
        path = self.path(experiment, f"{key}.json")
        settings = self.plan.experiments.get(experiment, {})
        if path.exists():
            found = json.loads(path.read_text())
            if found["settings"] == settings:
                return found["value"]
        write_json(path, {"settings": settings, "value": make()})
        return json.loads(path.read_text())["value"]

    def path(self, experiment: str, name: str) -> Path:
        """A file of the experiment, whose folder is made."""
        folder = self.folder / experiment
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


if TYPE_CHECKING:
    from ascl_plugin.experiments.study import Study, Trained


def cells_of(
    study: Study,
    experiment: str,
    settings: dict[str, Any],
    seeds: Sequence[int],
    measure: Callable[[Trained], Any],
) -> dict[str, list[Any]]:
    """Model -> `measure` of its runs, seed by seed; what is measured already is not opened.

    The models are `settings["models"]`, by default the first two of the study.
    """

    def cell(model: str, seed: int) -> Any:
        return study.cell(
            experiment, f"{model}-{seed}", lambda: measure(study.trained(model, seed))
        )

    models = settings.get("models", list(study.models)[:2])
    return {model: [cell(model, seed) for seed in seeds] for model in models}
