"""Plots as SVG text for the page, in the page's own colours, light or dark, and fonts.

Matplotlib draws with stand-in colours that are then replaced by the page's CSS variables. The same rows give
the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tiltbox.report.collect import Row, class_names
from tiltbox.report.comparison import groups, trained_alike
from tiltbox.report.formatting import counted
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Cost = Literal["flops", "params"]
Course = Sequence[tuple[int, float]]  # a figure by epoch
Curve = Sequence[tuple[float, float]]  # recall and precision
Places = Mapping[str, tuple[float, float]]  # of the points of rows, by their names
# Stand-in colour: its replacement in the page.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
_COLOURS = [f"#{number:02x}{number:02x}{number:02x}" for number in range(4, 10)]  # of series
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    stand_in: f"var(--series-{number})" for number, stand_in in enumerate(_COLOURS, 1)
}
_MARKERS = ("o", "D", "^", "v", "P", "X")
OTHER = "other"  # detectors without a series
COLUMNS = 3  # panels side by side
COST_NAMES = {"flops": "multiply-adds (G)", "params": "parameters (M)"}
PANELS_WIDE = 5  # classes in a row
PANEL_TOP = 1.05  # keeps a precision of 1 off the edge
PANEL_STEP = 1.22, 1.36 * PANEL_TOP  # from one panel to the next
TICKS = (0, 0.5, 1)
LONGEST_TITLE = 20  # letters that fit above a panel
_STYLE: dict[RcKeyType, str | float] = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be read aloud
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 7,
}


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    label: str
    colour: str
    marker: str


Looks = dict[str | None, Look]  # by series; None for detectors without one


def series_looks(rows: Sequence[Row]) -> Looks:
    """The look of each series, in the order of the rows; detectors without a series come last, in grey."""
    names = dict.fromkeys(row.series for row in rows if row.series)
    looks: Looks = {
        name: Look(name, _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)])
        for at, name in enumerate(names)
    }
    return looks | {None: Look(OTHER, MUTED, "s")}


def group_title(group: Sequence[Row]) -> str:
    """The sizes of rows that are shown together."""
    return " · ".join(dict.fromkeys((row.size or OTHER).upper() for row in group))


def accuracy_plot(rows: Sequence[Row], cost: Cost = "flops", sure: Uncertainty = UNKNOWN) -> str | None:
    """AP50 over FLOPs or parameters with its 95 % interval; None if no row has both.

    A line joins neighbours of a series that were trained alike; marks of rows that were trained for fewer
    epochs than others are hollow.
    """
    places = _places(rows, cost)
    rows = [row for row in rows if row.name in places]
    if not rows:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.7), layout="constrained")
        axes = figure.subplots()
        for series, look in series_looks(rows).items():
            of_it = [row for row in rows if row.series == series]
            if series is not None:
                _series_line(axes, look, of_it, places)
            _series_points(axes, look, of_it, places, _longest(rows), sure)
        for row in rows:
            _name_point(axes, row, rows, places, sure)
        axes.set(xlabel=COST_NAMES[cost], ylabel="AP50 (%)")
        axes.margins(x=0.08, y=0.18)
        axes.set_xlim(left=0)
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), max(1, high))
        axes.legend(labelcolor=INK, loc="best")
        found = [f"{name}: {y:.2f} % at {x:.2f}" for name, (x, y) in places.items()]
        return _svg(figure, f"accuracy-{cost}", f"AP50 over {COST_NAMES[cost]}", "; ".join(found))


def loss_plot(rows: Sequence[Row]) -> str | None:
    """Training loss over epochs, a panel for each group; None before any training."""
    courses = [[(each.epoch, each.loss) for each in row.history] for row in rows]
    return _courses_plot(rows, courses, "loss", "Training loss", "loss, mean of the epoch")


def validation_plot(rows: Sequence[Row]) -> str | None:
    """AP50 during training, in percent over epochs, likewise; None if no row was validated."""
    courses = [
        [(each.epoch, 100 * each.val_AP50) for each in row.history if each.val_AP50 is not None]
        for row in rows
    ]
    return _courses_plot(rows, courses, "validation", "AP50 while training", "AP50 on patches (%)")


def _courses_plot(
    rows: Sequence[Row], courses: Sequence[Course], name: str, title: str, unit: str
) -> str | None:
    drawn = [(row, course) for row, course in zip(rows, courses, strict=True) if course]
    if not drawn:
        return None
    of_row = {row.name: course for row, course in drawn}
    together = groups([row for row, _ in drawn])
    wide = min(len(together), COLUMNS)
    deep = math.ceil(len(together) / wide)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 2.9 * deep), layout="constrained")
        panels = figure.subplots(deep, wide, sharey=True, squeeze=False)
        for group, axes in zip(together, panels.flat, strict=False):
            _courses_panel(axes, group, [of_row[row.name] for row in group], series_looks(rows))
        for empty in panels.flat[len(together) :]:
            empty.set_axis_off()
        for left in panels[:, 0]:
            left.set_ylabel(unit)
        found = [f"{row.name}: {_said(course)}" for row, course in drawn]
        return _svg(figure, name, f"{title} over epochs", "; ".join(found))


def curves_plot(group: Sequence[Row], looks: Looks | None = None) -> str | None:
    """Precision over recall at IoU 0.5 of detectors that are shown together, a panel for each class.

    Args:
        looks: Of all series in the report; by default only of those in the group.

    Returns:
        None before any of them was scored.
    """
    looks = looks or series_looks(group)
    rows = [row for row in group if row.curves]
    names = [name for name in class_names(rows) if any(row.curve(name) for row in rows)]
    if not names:
        return None
    deep = math.ceil(len(names) / PANELS_WIDE)
    with matplotlib.rc_context(_STYLE):
        wide, high = 7.6, 1 + 1.4 * deep
        figure = Figure(figsize=(wide, high))
        left, low, right, top = 0.6 / wide, 0.55 / high, 1 - 0.15 / wide, 1 - 0.55 / high
        axes = figure.add_axes((left, low, right - left, top - low))
        axes.set_axis_off()
        corners = [_corner(number) for number in range(len(names))]
        axes.set(xlim=(0, _corner(PANELS_WIDE - 1)[0] + 1), ylim=(corners[-1][1], PANEL_TOP))
        for number, (name, corner) in enumerate(zip(names, corners, strict=True)):
            lowest = number + PANELS_WIDE >= len(names)
            _panel(axes, name, corner, left=number % PANELS_WIDE == 0, lowest=lowest)
        for row in rows:
            label = _label_in(row, rows)
            _panel_curves(axes, looks[row.series], label, [row.curve(name) for name in names], corners)
        figure.supxlabel("recall", color=MUTED, fontsize=10, y=0.1 / high, va="bottom")
        figure.supylabel("precision", color=MUTED, fontsize=10, x=0.1 / wide, ha="left")
        figure.legend(loc="upper right", ncols=len(rows), labelcolor=INK)
        drawn = f"A panel for each of {counted(len(names), 'class', 'classes')}, with a line for each of "
        drawn += f"{', '.join(row.name for row in rows)}. AP50 in the table sums each line up."
        return _svg(figure, f"curves-{rows[0].name}", "Precision over recall at IoU 0.5", drawn)


# All panels are in one pair of axes: a pair for each would take six times as long.


def _corner(number: int) -> np.ndarray:
    """Lower left corner of a panel, (2,), in the axes, where a panel is 1 wide and PANEL_TOP high."""
    right, down = PANEL_STEP
    return np.array((number % PANELS_WIDE * right, -(number // PANELS_WIDE) * down))


def _panel(axes: Axes, name: str, corner: np.ndarray, *, left: bool, lowest: bool) -> None:
    """Frame, grid and name; ticks have labels to the left of a row and below a column."""
    x, y = corner
    grid = [[(0, tick), (1, tick)] for tick in TICKS[1:]] + [
        [(tick, 0), (tick, PANEL_TOP)] for tick in TICKS[1:]
    ]
    frame = [[(0, PANEL_TOP), (0, 0), (1, 0)]]
    for lines, width in ((grid, 0.7), (frame, 0.8)):
        axes.add_collection(LineCollection(np.array(lines) + corner, colors=GRID, linewidths=width, zorder=1))
    axes.annotate(_shortened(name), (x, y + PANEL_TOP), (0, 5), textcoords="offset points", fontsize=8)
    label = partial(axes.annotate, textcoords="offset points", fontsize=8, color=MUTED)
    for tick in TICKS:
        if left:
            label(f"{tick:.1f}", (x, y + tick), (-4, 0), ha="right", va="center")
        if lowest:
            label(f"{tick:.1f}", (x + tick, y), (0, -4), ha="center", va="top")


def _panel_curves(
    axes: Axes, look: Look, label: str, curves: Sequence[Curve], corners: Sequence[np.ndarray]
) -> None:
    places = [np.array(curve).reshape(-1, 2) + at for curve, at in zip(curves, corners, strict=True)]
    lines = LineCollection(
        places,
        colors=look.colour,
        linestyles="-" if label == look.label else "--",
        linewidths=1.3,
        label=label,
        zorder=2,
    )
    axes.add_collection(lines)


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_TITLE else f"{name[: LONGEST_TITLE - 1]}…"


def _places(rows: Sequence[Row], cost: Cost) -> Places:
    """Cost and AP50 in percent of the rows that have both."""
    unit = {"flops": 1e9, "params": 1e6}[cost]
    found = ((row.name, row.figure(cost), row.figure("AP50")) for row in rows)
    return {name: (x / unit, 100 * y) for name, x, y in found if x is not None and y is not None}


def _series_line(axes: Axes, look: Look, rows: Sequence[Row], places: Places) -> None:
    rows = sorted(rows, key=lambda row: places[row.name][0])
    for one, other in pairwise(rows):
        if trained_alike(one, other):
            xs, ys = zip(places[one.name], places[other.name], strict=True)
            axes.plot(xs, ys, "-", color=look.colour)


def _series_points(
    axes: Axes, look: Look, rows: Sequence[Row], places: Places, longest: int | None, sure: Uncertainty
) -> None:
    label: str | None = look.label
    for row in rows:
        x, y = places[row.name]
        if bounds := sure.ranges(row).get("AP50"):
            axes.plot([x, x], [100 * bound for bound in bounds], "-", color=look.colour, linewidth=1)
        shorter = row.training is not None and row.training.epochs != longest
        axes.plot(
            x,
            y,
            color=look.colour,
            marker=look.marker,
            linestyle="none",
            markerfacecolor="none" if shorter else look.colour,
            label=label,
            clip_on=False,  # a point on the axis is drawn whole
        )
        label = None  # one entry of the legend is enough


def _longest(rows: Sequence[Row]) -> int | None:
    return max((row.training.epochs for row in rows if row.training), default=None)


def _name_point(axes: Axes, row: Row, rows: Sequence[Row], places: Places, sure: Uncertainty) -> None:
    """Write the row's name above its interval or, if another row of its group is higher, below."""
    x, y = places[row.name]
    low, high = (100 * bound for bound in sure.ranges(row).get("AP50") or (y / 100, y / 100))
    others = [other for group in groups(rows) if row in group for other in group if other is not row]
    above = all(y >= places[other.name][1] for other in others)
    place, offset = ((x, max(y, high)), (0, 7)) if above else ((x, min(y, low)), (0, -15))
    axes.annotate(_point_label(row, rows), place, offset, textcoords="offset points", ha="center", color=INK)


def _point_label(row: Row, rows: Sequence[Row]) -> str:
    """The size, if it says which detector of the series is meant; else the name."""
    alike = [other for other in rows if (other.series, other.size) == (row.series, row.size)]
    return row.size.upper() if row.series and row.size and len(alike) == 1 else row.name


def _label_in(row: Row, group: Sequence[Row]) -> str:
    """The series, if it says which detector of the group is meant; else the name."""
    alike = [other for other in group if other.series == row.series]
    return row.series if row.series and len(alike) == 1 else row.name


def _courses_panel(axes: Axes, group: Sequence[Row], courses: Sequence[Course], looks: Looks) -> None:
    for row, course in zip(group, courses, strict=True):
        axes.plot(
            *zip(*course, strict=True),
            color=looks[row.series].colour,
            marker=looks[row.series].marker,
            markersize=0 if len(course) > 12 else 4,
            label=_label_in(row, group),
        )
    axes.set_title(group_title(group))
    axes.set_xlabel("epoch")
    axes.locator_params("x", integer=True)
    axes.legend(labelcolor=INK, fontsize=9, handlelength=1.2)


def _said(course: Course) -> str:
    """The course of a figure, in words."""
    first, last = course[0][1], course[-1][1]
    ends = f"from {first:.3g} to {last:.3g}" if math.isfinite(first + last) else "diverged"
    return f"{ends} in {counted(course[-1][0], 'epoch')}"


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an ``<svg>`` element that scales with the page; ids begin with ``name``.

    A screen reader reads title and description aloud.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*pt" height="[^"]*pt"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub(r"(\.\d\d)\d+", r"\1", svg)  # hundredths of a point are precise enough
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    labels = f"{name}-title", f"{name}-description"
    said = (
        f'<title id="{labels[0]}">{escape(title)}</title><desc id="{labels[1]}">{escape(description)}</desc>'
    )
    head, rest = svg.removeprefix("<svg").split(">", 1)
    return f'<svg role="img" aria-labelledby="{labels[0]}" aria-describedby="{labels[1]}"{head}>{said}{rest}'
