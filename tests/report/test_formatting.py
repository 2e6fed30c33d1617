"""Figures as text: signs, intervals, columns."""

from __future__ import annotations

import pytest

from tiltbox.report.formatting import aligned, interval, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.004, "±0.00"), (-0.004, "±0.00"), (0.005001, "+0.01"), (-12.3, "−12.30")],
)
def test_signed(value, text):
    assert signed(value) == text


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


def test_a_table_without_rows_is_its_header():
    assert aligned(("model", "AP50"), []) == ["model  AP50"]
