"""A study at work: trained models opened for measuring, finished cells kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.data.lanes import Lanes
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.disk import write_json
from ascl_plugin.experiments.plan import EXPERIMENTS, Plan, Settings
from ascl_plugin.experiments.runs import Runs
from ascl_plugin.interfaces import Row, Rows
from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.report.document import Section
from ascl_plugin.report.experiment_file import Origin, write_section
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import TextInputs, image_inputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.retrieval.views import MirroredRows
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.setup import load_splits
from ascl_plugin.yaml_file import read_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """A trained model on the split of the study.

    Attributes:
        seed, options: of the run.
        model: in evaluation mode.
        evaluator: encodes and scores rows and texts with the model.
        rows: the split.
        texts: its captions (T).
        caption_to_image: (T,) row of each.
        sim: (I, T) scores of all of them, mapped from disk.
    """

    seed: int
    options: Settings
    model: RetrievalModel
    evaluator: Evaluator
    rows: Rows
    texts: list[str]
    caption_to_image: np.ndarray
    sim: Tensor


class Study:
    """Models by name and seed, and a place for what experiments find.

    Args:
        plan: the models and settings.
        folder: the folder of all files.
        jobs: runs trained at the same time.
        command: the command that started the study, for its results.
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

    def run(self, name: str) -> str:
        """Run one experiment, write its files, and return them as Markdown."""
        section = load(name)(self, self.plan.experiments.get(name, {}))
        place = list(EXPERIMENTS).index(name)
        origin = Origin(name, place, self.command, self.seeds, self.split)
        return write_section(self.folder / name, section, origin)

    def results(self, model: str, seed: int) -> SplitResults:
        """Return the results of a model on the split; train it if need be."""
        self.runs.train([(model, seed)])
        return SplitResults.from_dict(self.runs.metrics(model, seed)[self.split])

    def trained(self, model: str, seed: int) -> Trained:
        """Return a model and its scores; train it if need be."""
        self.runs.train([(model, seed)])
        folder = self.runs.path(model, seed)
        options = read_yaml(folder / "config.yaml")
        # the plan named its components, so they have been imported to train it
        loaded = RetrievalModel.from_pretrained(str(folder / "best"), allow_import=True).eval()
        loaded.to("cuda" if torch.cuda.is_available() and not options["cpu"] else "cpu")
        cache = Path(options["cache_dir"]).expanduser()
        files = options["region_files"], options["pooled_files"]
        of_images = cache if options["cache_images"] else None
        images = image_inputs(loaded.image_encoder, of_images, *files)
        rows = self.rows()
        images.prepare(cast(Sequence[Row], rows), options["eval_batch_size"], progress=True)
        if options.get("average_views"):
            images.prepare(MirroredRows(rows), options["eval_batch_size"], progress=True)
        evaluator = Evaluator(
            loaded, images,
            TextInputs(
                loaded.text_encoder, cache if options["cache_texts"] else None,
                lexical=loaded.lexical_ids,
            ),
            options["eval_batch_size"], average_views=options.get("average_views", False),
        )  # fmt: skip
        texts, owners = caption_to_image(rows)
        sim = self.scores(model, seed)
        return Trained(seed, options, loaded, evaluator, rows, texts, owners, sim)

    def scores(self, model: str, seed: int) -> Tensor:
        """Return the scores (I, T) of a model, mapped from disk; train it if need be."""
        self.runs.train([(model, seed)])
        path = self.runs.path(model, seed) / f"scores_{self.split}.npy"
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    def rows(self) -> Rows:
        """Return the split; nothing is trained for it."""
        return self._splits[self.split]

    @cached_property
    def _splits(self) -> dict[str, Rows]:
        name = next(iter(self.models))
        options = parse_options([], self.runs.options(name, self.seeds[0]))
        found = load_splits(resolve(options))
        splits = {name: rows for name, rows in found.items() if not isinstance(rows, Lanes)}
        if self.split not in splits:
            raise ValueError(f"no split {self.split}; there are {', '.join(splits)}")
        return splits

    def cell(self, experiment: str, key: str, make: Callable[[], T]) -> T:
        """Return `make()` as JSON holds it, made once for these settings of the experiment.

        A cell is of one model: another one in the table leaves it as it is.
        """
        path = self.path(experiment, f"{key}.json")
        settings = _of_a_cell(self.plan.experiments.get(experiment, {}))
        if not path.exists() or _of_a_cell(json.loads(path.read_text())["settings"]) != settings:
            write_json(path, {"settings": settings, "value": make()})
        return json.loads(path.read_text())["value"]

    def path(self, experiment: str, name: str) -> Path:
        """Return the path of a file of the experiment, whose folder is made."""
        folder = self.folder / experiment
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def _of_a_cell(settings: Settings) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name not in ("models", "baseline")}


def load(experiment: str) -> Callable[[Study, Settings], Section]:
    """Import the function of an experiment."""
    module, _, function = EXPERIMENTS[experiment].partition(":")
    return getattr(import_module(f"ascl_plugin.experiments.{module}"), function)


def cells_of(
    study: Study,
    experiment: str,
    models: Sequence[str],
    seeds: Sequence[int],
    measure: Callable[[Trained], T],
) -> dict[str, list[T]]:
    """Return model to `measure` of its runs, seed by seed; a finished cell opens no model."""

    def cell(model: str, seed: int) -> T:
        return study.cell(
            experiment, f"{model}-{seed}", lambda: measure(study.trained(model, seed))
        )

    return {model: [cell(model, seed) for seed in seeds] for model in models}


def models_of(study: Study, settings: Settings) -> list[str]:
    """Return the models of an experiment that compares two: by default the first two."""
    return settings.get("models") or list(study.models)[:2]
