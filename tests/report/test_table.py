"""Cells: signs, differences, the best of a column."""

from __future__ import annotations

import pytest

from tiltbox.report.table import Cell, aligned, difference, mark_best, signed


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


@pytest.mark.parametrize(
    ("texts", "best"),
    [
        ([], []),
        (["–"], []),
        (["1.00"], []),
        (["1.00", "–"], []),
        (["0.00", "0.00"], []),
        (["9.00", "10.00"], ["10.00"]),
        (["9.00", "9.00", "8.00"], ["9.00", "9.00"]),
    ],
)
def test_the_best_is_marked_where_figures_differ(texts, best):
    rows = mark_best([(Cell("x"), Cell(text)) for text in texts], 1)
    assert [cell.text for row in rows for cell in row if cell.kind == "best"] == best


@pytest.mark.parametrize(
    ("texts", "best"),
    [([], []), (["–"], []), (["2.0", "–", "10.0"], ["2.0"]), (["3.1", "3.1"], []), (["0.0", "1.0"], ["0.0"])],
)
def test_the_best_may_be_the_smallest(texts, best):
    rows = mark_best([(Cell("x"), Cell(text)) for text in texts], 1, better="less")
    assert [cell.text for row in rows for cell in row if cell.kind == "best"] == best


def test_a_difference_has_the_decimals_of_the_figures():
    assert difference(-1.25, better="less", decimals=1) == Cell("−1.2", kind="better")
    assert difference(0.04, better="less", decimals=1) == Cell("±0.0")


def test_a_table_without_rows_is_its_header():
    assert aligned(("model", "AP50"), []) == ["model  AP50"]
