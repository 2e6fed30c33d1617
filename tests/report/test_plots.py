"""Plots: well-formed SVG that takes its colours from the page."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from tiltbox.report.collect import Row
from tiltbox.report.plots import accuracy_plot, loss_plot
from tiltbox.report.records import Epoch

SVG = "{http://www.w3.org/2000/svg}"
PLOTS = [accuracy_plot, loss_plot]


@pytest.fixture
def rows(make_row) -> list[Row]:
    names = ("xs-previous", "s-previous", "xs-current", "s-current", "s-current-wide")
    return [make_row(f"yoloms-{name}", 0.3 + 0.05 * at) for at, name in enumerate(names)]


def words(svg: str) -> list[str]:
    return [each.text for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_to_plot(plot):
    assert plot([]) is None and plot([Row("mine", "mini")]) is None


@pytest.mark.parametrize("plot", PLOTS)
def test_colours_are_those_of_the_page(plot, rows):
    svg = plot(rows)
    assert re.findall(r"(?:fill|stroke): ?#\w+", svg) == []
    assert {"var(--previous)", "var(--current)", "var(--ink)"} <= set(re.findall(r"var\(--\w+\)", svg))


@pytest.mark.parametrize("plot", PLOTS)
def test_the_same_rows_give_the_same_bytes_without_date(plot, rows):
    assert plot(rows) == plot(rows)
    assert "metadata" not in plot(rows)


@pytest.mark.parametrize("plot", PLOTS)
def test_references_stay_inside(plot, rows):
    svg = plot(rows)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(ids)


def test_points_are_named_by_size_or_in_full(rows):
    names = words(accuracy_plot(rows))
    assert names.count("XS") == names.count("S") == 2 and "yoloms-s-current-wide" in names
    assert {"previous", "current"} <= set(names)


@pytest.mark.parametrize("previous", [0.3, 0.5])
def test_names_of_a_size_stand_on_either_side(make_row, previous):
    """Above the better of the two and below the other, so that they never meet."""
    rows = [make_row("yoloms-xs-previous", previous), make_row("yoloms-xs-current", 0.4)]
    svg = ElementTree.fromstring(accuracy_plot(rows))
    names = [place(each) for each in svg.iter(f"{SVG}text") if each.text == "XS"]
    points = [place(each) for each in svg.iter(f"{SVG}use")]
    points = [min(points, key=lambda point: math.dist(point, name)) for name in names]
    high, low = sorted(range(2), key=lambda at: points[at][1])  # y points down
    assert names[high][1] < points[high][1] < points[low][1] < names[low][1]


def place(element: ElementTree.Element) -> tuple[float, float]:
    return float(element.get("x")), float(element.get("y"))


def test_each_size_has_a_panel(rows):
    names = words(loss_plot(rows))
    assert names.count("epoch") == 2 and {"XS", "S"} <= set(names)


def test_a_variant_of_no_known_design_is_drawn_too(make_row):
    row = make_row("yoloms-xs-previous", size=None, generation=None)
    assert "OTHER" in words(loss_plot([row])) and "other" in words(accuracy_plot([row]))


def test_axes_of_what_cannot_be_negative_begin_at_zero(make_row):
    svg = accuracy_plot([make_row("yoloms-xs-previous", 0.0), make_row("yoloms-xs-current", 0.0)])
    assert words(svg).count("0") >= 1 and not [word for word in words(svg) if word[0] in "-−"]


def test_a_training_that_diverged_is_drawn_as_far_as_it_goes(make_row):
    history = (Epoch(epoch=1, loss=2.0), Epoch(epoch=2, loss=float("nan")))
    assert "nan" not in loss_plot([make_row("yoloms-xs-previous", history=history)])
