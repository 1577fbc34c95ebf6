"""Training curves of runs, from their logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ascl_plugin.report.document import Figure
from ascl_plugin.report.plots import label, legend, save
from ascl_plugin.report.read import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = {
    "loss": "Training loss",
    "learning_rate": "Learning rate",
    "val_rsum": "Validation Rsum",
    "val_i2t_r1": "Validation I2T R@1",
    "val_t2i_r1": "Validation T2I R@1",
}
_LINES = 6  # one color each


def training_curves(runs: Sequence[Run], folder: Path) -> list[Figure]:
    """Draw the curves of the logs into `folder`, at most six runs in each figure."""
    figures = []
    for key, title in _CURVES.items():
        logged = [run for run in runs if sum(key in line for line in run.log) > 1]
        for start in range(0, len(logged), _LINES):
            part = logged[start : start + _LINES]
            path = folder / f"{key}-{start // _LINES}.svg"
            save(_drawing(part, key, title), path)
            names = ", ".join(run.name for run in part)
            figures.append(Figure(path, f"{title} of {names}"))
    return figures


def _drawing(runs: Sequence[Run], key: str, title: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for run in runs:
            points = [(line["step"], line[key]) for line in run.log if key in line]
            marker = "o" if len(points) < 20 else ""
            (line,) = axes.plot(*zip(*points, strict=True), marker=marker, label=label(run.name))
            if (end := alignment_end(run)) is not None:
                axes.axvspan(0, end, color=line.get_color(), alpha=0.08, lw=0)
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        legend(axes)

    return draw


def alignment_end(run: Run) -> float | None:
    """Return the last logged step of the `align_epochs` of a run, shaded in its curves, or None."""
    epochs = run.options.get("align_epochs")
    if not isinstance(epochs, int):
        return None
    steps = [line["step"] for line in run.log if line.get("epoch", 0) < epochs]
    return max(steps, default=None)
