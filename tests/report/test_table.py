"""Cells: signs, differences, intervals, the best."""

from __future__ import annotations

import pytest

from tiltbox.report.table import Cell, aligned, difference, interval, mark, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.004, "±0.00"), (-0.004, "±0.00"), (0.005001, "+0.01"), (-12.3, "−12.30")],
)
def test_signed(value, text):
    assert signed(value) == text


@pytest.mark.parametrize(
    ("value", "better", "kind"),
    [
        (None, "more", ""),
        (0.0, "more", ""),
        (1.0, "more", "better"),
        (-1.0, "more", "worse"),
        (1.0, "less", "worse"),
        (-1.0, "less", "better"),
    ],
)
def test_a_difference_is_judged_by_what_is_wanted(value, better, kind):
    assert difference(value, better=better).kind == kind


def test_one_cell_is_marked():
    line = mark((Cell("x"), Cell("1.00"), Cell("2.00")), 1)
    assert [cell.kind for cell in line] == ["", "best", ""]


@pytest.mark.parametrize(
    ("bounds", "signs", "text"),
    [
        (None, False, "–"),
        ((None, None), False, "–"),
        ((0.1, 0.25), False, "10.00 to 25.00"),
        ((-0.1, 0.0), True, "−10.00 to ±0.00"),
    ],
)
def test_an_interval(bounds, signs, text):
    assert interval(bounds, signs=signs) == text


def test_a_difference_has_the_decimals_of_the_figures():
    assert difference(-1.25, better="less", decimals=1) == Cell("−1.2", kind="better")
    assert difference(0.04, better="less", decimals=1) == Cell("±0.0")


def test_a_table_without_rows_is_its_header():
    assert aligned(("model", "AP50"), []) == ["model  AP50"]
