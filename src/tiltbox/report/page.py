"""The leaderboard as one HTML page that needs nothing else: no script, font or picture from elsewhere.

A small script in the page sorts tables and chooses what the gallery shows; without it, everything is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tiltbox.report.cells import Table
from tiltbox.report.collect import Row
from tiltbox.report.comparison import groups
from tiltbox.report.gallery import Exhibition, exhibition
from tiltbox.report.leaderboard import Leaderboard
from tiltbox.report.plots import (
    accuracy_plot,
    curves_plot,
    group_title,
    loss_plot,
    series_looks,
    validation_plot,
)
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty

GALLERY = "gallery"
MARKS = "Bars are 95 % intervals; hollow marks were trained for fewer epochs."
BEFORE_GALLERY = ("models", "comparisons", "runs", "published", "classes", "angles")


@dataclass(frozen=True)
class Plot:
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Part:
    """A section of the page: a table with its plots, or the gallery.

    Attributes:
        floor: The share at which shades of the table begin; None if it has none.
    """

    key: str
    title: str
    table: Table | None = None
    floor: float | None = None
    plots: tuple[Plot, ...] = ()
    exhibition: Exhibition | None = None


def page(board: Leaderboard, rows: Sequence[Row], sure: Uncertainty = UNKNOWN) -> str:
    """The HTML text."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = _parts(board, rows, sure)
    return templates.get_template("page.html.j2").render(title=board.title, parts=parts)


def _parts(board: Leaderboard, rows: Sequence[Row], sure: Uncertainty) -> list[Part]:
    plots = _plots(rows, sure)
    parts = [
        Part(each.key, each.title, each.table, _floor(each.table), tuple(plots.get(each.key, ())))
        for each in board.sections
    ]
    if shown := exhibition(rows):
        at = sum(part.key in BEFORE_GALLERY for part in parts)
        parts.insert(at, Part(GALLERY, "Predictions beside labels", exhibition=shown))
    return parts


def _floor(table: Table) -> float | None:
    """The nearest tenth at or below the least share, so that shades also tell good ones apart."""
    shares = [cell.share for row in table.rows for cell in row if cell.share is not None]
    return min(0.9, math.floor(10 * min(shares)) / 10) if shares else None


def _plots(rows: Sequence[Row], sure: Uncertainty) -> dict[str, list[Plot]]:
    """The plots for which there are data, by section."""
    several = rows if len(rows) > 1 else []  # a single point has nothing to be compared with
    curves = {group_title(group): curves_plot(group, series_looks(rows)) for group in groups(rows)}
    drawn = {
        "models": {
            f"Accuracy over cost: AP50 against multiply-adds. {MARKS}": accuracy_plot(several, "flops", sure),
            f"Accuracy over size: AP50 against parameters. {MARKS}": accuracy_plot(several, "params", sure),
        },
        "classes": {f"{title}: precision over recall at IoU 0.5": svg for title, svg in curves.items()},
        "training": {
            "Training loss": loss_plot(rows),
            "AP50 while training, on patches that are not used for training": validation_plot(rows),
        },
    }
    return {
        key: [Plot(caption, Markup(svg)) for caption, svg in plots.items() if svg]
        for key, plots in drawn.items()
    }
