"""The leaderboard as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tiltbox.report.collect import Row
from tiltbox.report.leaderboard import Leaderboard
from tiltbox.report.plots import accuracy_plot, curves_plot, loss_plot
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty


@dataclass(frozen=True)
class Plot:
    caption: str
    svg: Markup


def page(board: Leaderboard, rows: Sequence[Row], sure: Uncertainty = UNKNOWN) -> str:
    """The HTML text."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.j2").render(board=board, plots=_plots(rows, sure))


def _plots(rows: Sequence[Row], sure: Uncertainty) -> dict[str, list[Plot]]:
    """The plots that there is data for, by the section they belong to."""
    curves = {(row.size or "other").upper(): curves_plot(rows, row.size) for row in rows}
    drawn = {
        "models": {"Accuracy over cost: AP50 against multiply-adds": accuracy_plot(rows, sure)},
        "classes": {f"{size}: precision over recall at IoU 0.5": svg for size, svg in curves.items()},
        "training": {"Training loss": loss_plot(rows)},
    }
    return {
        key: [Plot(caption, Markup(svg)) for caption, svg in plots.items() if svg]
        for key, plots in drawn.items()
    }
