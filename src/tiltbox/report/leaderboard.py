"""The whole leaderboard as titled sections of tables, the same for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiltbox.report.cells import Table
from tiltbox.report.collect import Row
from tiltbox.report.leaderboard_tables import (
    angle_table,
    class_table,
    model_table,
    pair_table,
    published_table,
    run_table,
    source_table,
    training_table,
)
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty
from tiltbox.settings.published import Published


@dataclass(frozen=True)
class Section:
    """A heading and what is below it; ``key`` names its place in the page."""

    key: str
    title: str
    table: Table


@dataclass(frozen=True)
class Leaderboard:
    title: str
    sections: tuple[Section, ...]


def leaderboard(
    rows: Sequence[Row], out: Path, published: Published, sure: Uncertainty = UNKNOWN
) -> Leaderboard:
    """Make all sections that have content; links are relative to the folder ``out``."""
    tables = {
        ("models", "Models"): model_table(rows, out, sure),
        ("comparisons", "Compared detectors"): pair_table(rows, sure),
        ("runs", "How sure the scores are"): run_table(rows, sure),
        ("published", "Published numbers beside ours"): published_table(rows, published),
        ("classes", "AP50 by class"): class_table(rows, published),
        ("angles", "Angle error by class"): angle_table(rows),
        ("training", "Training"): training_table(rows),
        ("sources", "Where the figures come from"): source_table(rows, out),
    }
    sections = tuple(Section(*names, table) for names, table in tables.items() if table)
    names = dict.fromkeys(row.dataset for row in rows)
    return Leaderboard(f"Leaderboard: {', '.join(names)}", sections)
