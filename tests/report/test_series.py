"""Files of figures for DVC: a JSON per detector, and tables whose first column names it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tiltbox.records import CurvePoint, Epoch
from tiltbox.report.series import series

XS, S = "yoloms-xs-previous", "yoloms-s-current"


def curve(name: str, *points: tuple[float, float]) -> tuple[CurvePoint, ...]:
    rows = ({"class": name, "threshold": 0.5, "recall": recall, "precision": p} for recall, p in points)
    return tuple(CurvePoint(**row) for row in rows)


def lines(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_nothing():
    tables = {"training.csv": ["detector", "epoch", "loss"], "validation.csv": ["detector", "epoch", "AP50"]}
    assert {path.name for path in series([])} == {*tables, "precision_recall.csv", "ap_by_class.csv"}
    assert lines(series([])[Path("plots/training.csv")]) == [tables["training.csv"]]


def test_scores_are_as_the_leaderboard_shows_them(make_row):
    scores = json.loads(series([make_row(XS, 0.75877)])[Path(f"metrics/{XS}.json")])
    expected = {"mAP": 20, "AP50": 75.88, "AP75": 10, "angle error (°)": 4.2, "p90 (°)": 20}
    assert scores == expected | {"params (M)": 4.48, "FLOPs (G)": 22.24}


def test_what_is_not_known_is_left_out(make_row):
    scores = json.loads(series([make_row(XS, metrics=None)])[Path(f"metrics/{XS}.json")])
    assert list(scores) == ["params (M)", "FLOPs (G)"]


def test_training(make_row):
    table = lines(series([make_row(XS), make_row(S, history=())])[Path("plots/training.csv")])
    assert table == [["detector", "epoch", "loss"], [XS, "1", "1.5"], [XS, "2", "1.25"]]


def test_scores_while_training(make_row):
    scored = make_row(XS, history=(Epoch(epoch=1, loss=1.5), Epoch(epoch=2, loss=1.25, val_AP50=0.5)))
    table = lines(series([scored, make_row(S)])[Path("plots/validation.csv")])
    assert table == [["detector", "epoch", "AP50"], [XS, "2", "50.00"]]


def test_precision_is_the_best_at_this_recall_or_a_higher_one(make_row):
    """The curve of the row: precision 1 up to recall 0.25, 0.8 up to 0.5, none above."""
    _, *rows = lines(series([make_row(XS)])[Path("plots/precision_recall.csv")])
    found = {float(recall): float(precision) for _, recall, precision in rows}
    assert len(found) == 101
    assert (found[0.0], found[0.25], found[0.26], found[0.5], found[0.51], found[1.0]) == (
        1,
        1,
        0.8,
        0.8,
        0,
        0,
    )


def test_a_class_of_which_nothing_was_found_counts_as_zero(make_row):
    row = make_row(XS)
    missed = row.metrics.classes["plane"].model_copy(update={"AP50": 0.0})
    classes = row.metrics.classes | {"harbor": missed}
    row = replace(row, metrics=row.metrics.model_copy(update={"classes": classes}))
    _, *rows = lines(series([row])[Path("plots/precision_recall.csv")])
    assert rows[0] == [XS, "0.00", "0.5000"]


def test_recalls_that_a_curve_reaches_exactly(make_row):
    """In binary, 95 hundredths of one and a file's 0.95 must be the same number."""
    row = make_row(XS, curves=curve("plane", *((k / 100, 1.0) for k in range(1, 101))))
    _, *rows = lines(series([row])[Path("plots/precision_recall.csv")])
    assert {precision for _, _, precision in rows} == {"1.0000"}


def test_classes_without_objects_are_left_out(make_row):
    assert lines(series([make_row(XS)])[Path("plots/ap_by_class.csv")])[1:] == [[XS, "plane", "50.00"]]


@pytest.mark.parametrize("column", range(3))
def test_every_line_says_of_which_detector_it_is(make_row, column):
    name = ("training", "precision_recall", "ap_by_class")[column]
    _, *rows = lines(series([make_row(XS), make_row(S)])[Path(f"plots/{name}.csv")])
    assert {row[0] for row in rows} == {XS, S}
