"""Figures as files: each drawn for a light and for a dark page, the same file every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascl_plugin.disk import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Spread = tuple[float, float | None]
"""Mean and deviation over seeds; no deviation of a single seed."""

# Searched for: apart from each other under the three kinds of colour blindness (CIE Lab distance 38
# and more) and from their page (contrast 3 and more).
COLOURS = {
    "light": ("#3C36B7", "#F15D0C", "#3CA176", "#AB7EC7", "#6C2400", "#31113B"),
    "dark": ("#6278FF", "#D24926", "#57FEA8", "#A95089", "#F9CC1F", "#D4E3FF"),
}
_INK = {"light": ("#1F2328", "#D0D7DE"), "dark": ("#E6EDF3", "#3D444D")}  # text, grid
_PNG_DPI = 160


def save(
    draw: Callable[[Axes], None], path: str | Path, size: tuple[float, float] = (6, 4)
) -> None:
    """Draws a figure twice, on no background: NAME.svg and NAME.dark.svg, or .png likewise.

    Text stays text in an svg, and the same drawing gives the same bytes with the same matplotlib.
    Files are written aside and moved into place.

    Args:
        draw: puts everything on an empty plot; called twice. "C0" to "C5" and whatever takes its
            colour from the plot's cycle follow the page.
        path: of the light one, ending in .svg, or in .png where points are many.
        size: inches.

    Raises:
        ImportError: no matplotlib.
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"a figure ends in .svg or .png, got {path.name!r}")
    try:
        from matplotlib import style
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need `pip install "ascl-plugin[report]"`') from error
    for page in ("light", "dark"):
        there = path if page == "light" else path.with_suffix(f".dark{path.suffix}")
        with style.context(_theme(page), after_reset=True):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure.add_subplot())
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            with written(there) as aside:
                figure.savefig(aside, format=path.suffix[1:], metadata=metadata)


def panels(axes: Axes, count: int) -> list[Axes]:
    """`count` plots side by side in the place of one."""
    figure, place = axes.figure, axes.get_subplotspec()
    assert place is not None
    axes.remove()
    grid = place.subgridspec(1, count)
    return [figure.add_subplot(grid[0, column]) for column in range(count)]


def bars(
    axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Spread]], number: str = ".1f"
) -> None:
    """Bars side by side in groups; deviations, where a series has them all, as whiskers.

    Args:
        axes: where to.
        groups: names under the axis.
        series: name in the legend -> a `Spread` for each group.
        number: format of the means on top; "" writes none.

    Raises:
        ValueError: a series of another length than `groups`.
    """
    width = 0.8 / len(series)
    ink: dict[str, Any] = {"ecolor": axes.yaxis.label.get_color(), "capsize": 3}
    for place, (name, spreads) in enumerate(series.items()):
        means, deviations = zip(*spreads, strict=True)
        left = [x + (place - (len(series) - 1) / 2) * width for x in range(len(groups))]
        whiskers = None if None in deviations else deviations
        drawn = axes.bar(left, means, 0.92 * width, yerr=whiskers, label=name, **ink)
        if number:
            axes.bar_label(drawn, fmt=f"{{:{number}}}", padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)


def lines(axes: Axes, x: Sequence[float], series: Mapping[str, Sequence[Spread]]) -> None:
    """A line of means for each series, in a band of one deviation where there is one everywhere.

    Raises:
        ValueError: a series of another length than `x`.
    """
    for place, (name, spreads) in enumerate(series.items()):
        means, deviations = zip(*spreads, strict=True)
        (line,) = axes.plot(x, means, marker="osD^vX"[place % 6], label=name)
        if None not in deviations:
            low = [mean - d for mean, d in zip(means, deviations, strict=True)]
            high = [mean + d for mean, d in zip(means, deviations, strict=True)]
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def legend(axes: Axes) -> None:
    """The legend below the plot, where it covers nothing."""
    handles, names = axes.get_legend_handles_labels()
    axes.figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)))


def _theme(page: str) -> dict[str, Any]:
    """Settings of matplotlib for one page."""
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
        "savefig.dpi": _PNG_DPI,
        "savefig.facecolor": "none",
        "text.parse_math": False,  # a run may be called a$b$
        "svg.fonttype": "none",
        "svg.hashsalt": "ascl_plugin",
    }
