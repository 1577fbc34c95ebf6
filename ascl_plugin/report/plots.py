"""Figures as files: each drawn for a light and for a dark page, the same file every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ascl_plugin.disk import written
from ascl_plugin.metrics.statistics import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Found by a search: apart from each other under the three kinds of color blindness (CIE Lab
# distance 38 and more) and from their page (contrast 3 and more).
COLOURS = {
    "light": ("#3C36B7", "#F15D0C", "#3CA176", "#AB7EC7", "#6C2400", "#31113B"),
    "dark": ("#6278FF", "#D24926", "#57FEA8", "#A95089", "#F9CC1F", "#D4E3FF"),
}
_INK = {"light": ("#1F2328", "#D0D7DE"), "dark": ("#E6EDF3", "#3D444D")}  # text, grid
_VISIBLE = "\u200b"  # before a name; takes no room


def save(
    draw: Callable[[Axes], None], path: str | Path, size: tuple[float, float] = (6, 4)
) -> None:
    """Draw a figure twice, on no background: NAME.svg and NAME.dark.svg.

    Text stays text in an svg, and the same drawing gives the same bytes with the same matplotlib.
    Files are written aside and moved into place.

    Args:
        draw: puts everything on an empty plot; called twice. "C0" to "C5" and the plot's color
            cycle follow the page.
        path: the light figure, ending in .svg.
        size: inches.

    Raises:
        ImportError: no matplotlib.
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix != ".svg":
        raise ValueError(f"a figure ends in .svg, got {path.name!r}")
    try:
        from matplotlib import style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need `pip install "ascl-plugin[report]"`') from error
    for page in ("light", "dark"):
        target = path if page == "light" else path.with_suffix(".dark.svg")
        with style.context(_theme(page), after_reset=True):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure.add_subplot())
            with written(target) as aside:
                figure.savefig(aside, format="svg", metadata={"Date": None})


def panels(axes: Axes, count: int) -> list[Axes]:
    """Return `count` plots side by side in the place of one."""
    figure, place = axes.figure, axes.get_subplotspec()
    assert place is not None
    axes.remove()
    grid = place.subgridspec(1, count)
    return [figure.add_subplot(grid[0, column]) for column in range(count)]


def lines(axes: Axes, x: Sequence[float], series: Mapping[str, Sequence[Spread]]) -> None:
    """Draw a line of means for each series, and a band of one deviation if all means have one."""
    for place, (name, spreads) in enumerate(series.items()):
        means, deviations = map(np.array, zip(*spreads, strict=True))
        (line,) = axes.plot(x, means, marker="osD^vX"[place % 6], label=label(name))
        if None not in deviations:
            low, high = means - deviations, means + deviations
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def legend(axes: Axes) -> None:
    """Draw the legend below the plot, where it covers nothing."""
    handles, names = axes.get_legend_handles_labels()
    drawn = axes.figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))
    for text in drawn.get_texts():
        text.set_text(text.get_text().removeprefix(_VISIBLE))


def label(name: str) -> str:
    """Return a label that `legend` shows as `name`: matplotlib hides names that begin with "_"."""
    return _VISIBLE + name if name.startswith("_") else name


def _theme(page: str) -> dict[str, object]:
    """Return the settings of matplotlib for one page."""
    from cycler import cycler

    ink, grid = _INK[page]
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(inked, ink) | {
        "axes.prop_cycle": cycler(color=COLOURS[page]),
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "figure.facecolor": "none",
        "font.size": 10,
        "grid.color": grid,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.markerscale": 1.5,
        "lines.markersize": 5,
        "savefig.facecolor": "none",
        "text.parse_math": False,  # a run may be called a$b$
        "svg.fonttype": "none",
        "svg.hashsalt": "ascl_plugin",
    }
