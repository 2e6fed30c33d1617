"""Plots: well-formed SVG that takes its colours from the page."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import pytest

from tiltbox.records import CurvePoint, Epoch
from tiltbox.report.collect import Row
from tiltbox.report.plots import accuracy_plot, curves_plot, loss_plot, series_looks, validation_plot

SVG = "{http://www.w3.org/2000/svg}"
PLOTS = [accuracy_plot, partial(accuracy_plot, cost="params"), loss_plot, curves_plot]


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
    assert {"var(--series-1)", "var(--series-2)", "var(--ink)"} <= set(re.findall(r"var\(--[\w-]+\)", svg))


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
    assert (names.count("XS"), names.count("S")) == (2, 1)
    assert {"yoloms-s-current", "yoloms-s-current-wide"} <= set(names)
    assert {"YOLO-MS previous", "YOLO-MS current"} <= set(names)


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


def test_a_variant_of_an_unknown_design_is_drawn_too(make_row):
    row = make_row("yoloms-xs-previous", size=None, series=None)
    assert "OTHER" in words(loss_plot([row])) and "other" in words(accuracy_plot([row]))


def test_axes_of_what_cannot_be_negative_begin_at_zero(make_row):
    svg = accuracy_plot([make_row("yoloms-xs-previous", 0.0), make_row("yoloms-xs-current", 0.0)])
    assert words(svg).count("0") >= 1 and not [word for word in words(svg) if word[0] in "-−"]


def test_a_training_that_diverged_is_drawn_as_far_as_it_goes(make_row):
    history = (Epoch(epoch=1, loss=2.0), Epoch(epoch=2, loss=float("nan")))
    svg = loss_plot([make_row("yoloms-xs-previous", history=history)])
    assert "nan" not in svg and description(svg) == "yoloms-xs-previous: diverged in 2 epochs"


def description(svg: str) -> str:
    return ElementTree.fromstring(svg).find(f"{SVG}desc").text


def test_plots_are_described_in_words(rows):
    assert "yoloms-xs-previous: from 1.5 to 1.25 in 2 epochs" in description(loss_plot(rows))
    over_flops, over_parameters = (description(accuracy_plot(rows, cost)) for cost in ("flops", "params"))
    assert over_flops.startswith("yoloms-xs-previous: 30.00 % at 22.24; yoloms-s-previous: 35.00 % at")
    assert over_parameters.startswith("yoloms-xs-previous: 30.00 % at 4.48; ")
    assert "yoloms-xs-current" in description(curves_plot(rows))


# precision over recall ----------------------------------------------------------------------------------


def scored_on(make_row, name: str, *classes: str) -> Row:
    """A row with a curve from recall 0 to 1, at full precision, for each class."""
    row = make_row(name)
    figures = dict.fromkeys(classes, row.metrics.classes["plane"])
    points = [
        CurvePoint(**{"class": each, "threshold": 0.5, "recall": recall, "precision": 1})
        for each in classes
        for recall in (0, 1)
    ]
    return replace(row, metrics=row.metrics.model_copy(update={"classes": figures}), curves=tuple(points))


def test_each_class_with_a_curve_has_a_panel(make_row):
    """The ship of the rows has no objects, so no curve."""
    names = words(curves_plot([make_row("yoloms-xs-previous"), make_row("yoloms-xs-current")]))
    assert "plane" in names and "ship" not in names
    assert names.count("YOLO-MS previous") == names.count("YOLO-MS current") == 1
    many = [f"class-{number}" for number in range(12)]
    assert set(many) <= set(words(curves_plot([scored_on(make_row, "yoloms-xs-current", *many)])))


def test_a_series_keeps_its_colour(make_row):
    """In a plot of one group as in those of all rows."""
    rows = [make_row("yoloms-xs-previous"), make_row("yoloms-s-current")]
    alone = curves_plot(rows[1:], series_looks(rows))
    assert "var(--series-2)" in alone and "var(--series-1)" not in alone


def test_more_series_than_colours(make_row):
    rows = [make_row(f"yoloms-xs-{at}", series=f"series {at}") for at in range(8)]
    looks = series_looks(rows)
    assert (
        len({look.colour for look in looks.values()}) == 7
        and looks["series 6"].colour == looks["series 0"].colour
    )
    assert {f"series {at}" for at in range(8)} <= set(words(accuracy_plot(rows)))


def test_many_groups_are_drawn_in_rows(make_row):
    rows = [make_row(f"yoloms-{size}-previous") for size in ("n", "tiny", "xs", "s", "l")]
    svg = loss_plot(rows)
    assert {"N", "TINY", "XS", "S", "L"} <= set(words(svg)) and words(svg).count("epoch") == 5
    _, _, wide, high = map(float, ElementTree.fromstring(svg).get("viewBox").split())
    assert high > 0.7 * wide


def test_a_curve_is_drawn_where_it_runs(make_row):
    """From one side of the grid to the other, along the line of full precision."""
    svg = ElementTree.fromstring(curves_plot([scored_on(make_row, "yoloms-xs-current", "plane")]))
    across = [line for line in paths(svg, "--line") if line[0][1] == line[-1][1] > 0]
    curve, _ = paths(svg, "--series-1")  # the other is the legend's
    assert curve == min(across, key=lambda line: line[0][1])  # y points down


def paths(svg: ElementTree.Element, colour: str) -> list[list[tuple[float, float]]]:
    """The corners of each path of a colour."""
    drawn = [
        each.get("d") for each in svg.iter(f"{SVG}path") if f"stroke: var({colour})" in each.get("style", "")
    ]
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", each)] for each in drawn]


def test_names_that_are_long_or_hold_dollars(make_row):
    names = words(curves_plot([scored_on(make_row, "yoloms-xs-current", "a$b$", "x" * 60)]))
    assert "a$b$" in names and f"{'x' * 19}…" in names


def test_scores_while_training(make_row):
    """Only validated epochs are shown, and only rows that have any."""
    history = tuple(
        Epoch(epoch=epoch, loss=1.0, val_AP50=ap50) for epoch, ap50 in [(1, 0.25), (2, None), (3, 0.5)]
    )
    rows = [make_row("yoloms-xs-previous", history=history), make_row("yoloms-xs-current")]
    assert description(validation_plot(rows)) == "yoloms-xs-previous: from 25 to 50 in 3 epochs"
    assert validation_plot(rows[1:]) is None
