"""The leaderboard's figures in separate files, for tools that compare versions of them, such as DVC.

A JSON file of scores for each detector, and tables of curves with a column that names the detector.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tiltbox.report.collect import Row, class_names
from tiltbox.scores import FIGURES

METRICS, PLOTS = Path("metrics"), Path("plots")  # folders beside the leaderboard
RECALLS = np.arange(101) / 100
Line = tuple[str | int | float, ...]  # of a table


def series(rows: list[Row]) -> dict[Path, str]:
    """The text of every file, by its path beside the leaderboard.

    Scores are in percent, parameters in millions, multiply-adds in billions: as in the leaderboard.
    """
    return {METRICS / f"{row.name}.json": _scores(row) for row in rows} | {
        PLOTS / "training.csv": _table(("detector", "epoch", "loss"), _losses(rows)),
        PLOTS / "validation.csv": _table(("detector", "epoch", "AP50"), _validations(rows)),
        PLOTS / "precision_recall.csv": _table(("detector", "recall", "precision"), _curves(rows)),
        PLOTS / "ap_by_class.csv": _table(("detector", "class", "AP50"), _classes(rows)),
    }


def _scores(row: Row) -> str:
    values = {each.label: (row.figure(each.key), each) for each in FIGURES}
    shown = {
        label: round(value * each.factor, each.decimals)
        for label, (value, each) in values.items()
        if value is not None
    }
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


def _losses(rows: list[Row]) -> Iterable[Line]:
    for row in rows:
        for epoch in row.history:
            yield row.name, epoch.epoch, epoch.loss


def _validations(rows: list[Row]) -> Iterable[Line]:
    for row in rows:
        for epoch in row.history:
            if epoch.val_AP50 is not None:
                yield row.name, epoch.epoch, f"{100 * epoch.val_AP50:.2f}"


def _curves(rows: list[Row]) -> Iterable[Line]:
    """Precision at IoU 0.5 as AP uses it, the best at this recall or a higher one; the mean over classes."""
    for row in rows:
        scored = [name for name in class_names([row]) if row.class_ap50(name) is not None]
        precisions = [_interpolated(row.curve(name)) for name in scored] if row.curves else []
        for recall, precision in zip(
            RECALLS, np.mean(precisions, axis=0) if precisions else (), strict=False
        ):
            yield row.name, f"{recall:.2f}", f"{precision:.4f}"


def _interpolated(curve: list[tuple[float, float]]) -> np.ndarray:
    """Precision at the points of recall; zeros if no object of a class was found."""
    recalls, precisions = np.array(curve).reshape(-1, 2).T
    best = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0.0)
    return best[np.searchsorted(recalls, RECALLS)]


def _classes(rows: list[Row]) -> Iterable[Line]:
    for row in rows:
        for name in class_names(rows):
            value = row.class_ap50(name)
            if value is not None:
                yield row.name, name, f"{100 * value:.2f}"


def _table(head: tuple[str, ...], lines: Iterable[Line]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()
