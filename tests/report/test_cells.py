"""Cells: differences, the best."""

from __future__ import annotations

import pytest

from tiltbox.report.cells import Cell, difference, mark


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


def test_a_difference_has_the_decimals_of_the_figures():
    assert difference(-1.25, better="less", decimals=1) == Cell("−1.2", kind="better")
    assert difference(0.04, better="less", decimals=1) == Cell("±0.0")
