"""The gallery: counts and lines are those of the record, pictures are shared."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tiltbox.report.gallery import MOST_DRAWN, exhibition

SVG = "{http://www.w3.org/2000/svg}"


def drawn(svg: str) -> dict[str, int]:
    """How many boxes there are in each kind of line."""
    root = ElementTree.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    counts: dict[str, int] = {}
    for group in root.iter(f"{SVG}g"):
        kind, boxes = group.get("class"), group.findall(f"{SVG}path[{SVG}title]")
        if boxes:
            counts[kind] = counts.get(kind, 0) + len(boxes)
    return counts


def test_nothing_to_show(make_row, make_gallery):
    empty = make_gallery().model_copy(update={"images": ()})
    assert exhibition([]) is None
    assert exhibition([make_row("yoloms-xs-previous"), make_row("yoloms-s-current", gallery=empty)]) is None


def test_hits_misses_and_false_alarms(make_row, make_gallery):
    (detector,) = exhibition([make_row("yoloms-xs-previous", gallery=make_gallery(2, (0.5,)))]).detectors
    (drawing,) = detector.drawings
    assert drawing.counts == "2 hits, 1 miss, 1 false alarm at IoU 0.5, score ≥ 0.3"
    assert detector.counts == f"{drawing.counts}, 1 image"
    assert drawing.details == "Missed: 1 ship. False alarms: 1 plane. Difficult, not counted: 1."
    assert drawn(drawing.svg) == {"label": 2, "hit": 2, "miss": 1, "alarm": 1, "aside": 2}
    assert "false alarm: plane, score 0.50" in drawing.svg and drawing.details in drawing.svg


def test_misses_and_false_alarms_have_marks_of_their_own(make_row, make_gallery):
    """A cross has two strokes, a triangle is closed."""
    row = make_row("yoloms-xs-previous", gallery=make_gallery(0, (0.5, 0.4)))
    svg = exhibition([row]).detectors[0].drawings[0].svg
    marks = dict(re.findall(r'<path class="(\w+) mark" d="(.*?)"', svg))
    assert marks["miss"].count("M") == 3 and "z" not in marks["miss"]
    assert marks["alarm"].count("M") == marks["alarm"].count("z") == 2


def test_detectors_share_a_picture_of_the_same_image(make_row, make_gallery):
    rows = [make_row(f"yoloms-{name}", gallery=make_gallery()) for name in ("xs-previous", "xs-current")]
    other = make_row("yoloms-s-current", gallery=make_gallery(source="f" * 32))
    shown = exhibition([*rows, other])
    assert len(shown.pictures) == 2
    used = [re.findall(r'href="#(picture-\d+)"', each.drawings[0].svg) for each in shown.detectors]
    assert used == [["picture-1"], ["picture-1"], ["picture-2"]]


@pytest.mark.parametrize(("width", "large"), [(512, False), (513, True)])
def test_large_pictures_are_shown_large(make_row, make_gallery, width, large):
    row = make_row("yoloms-xs-previous", gallery=make_gallery(width=width))
    assert exhibition([row]).large is large


def test_what_it_is_compared_with_stands_beside(make_row, make_gallery):
    names = ("xs-previous", "s-previous", "s-current")
    shown = exhibition([make_row(f"yoloms-{name}", gallery=make_gallery()) for name in names])
    partners = [each.partner for each in shown.detectors]
    assert partners == [None, "yoloms-s-current", "yoloms-s-previous"]


@pytest.mark.parametrize("alarms", [MOST_DRAWN, MOST_DRAWN + 1])
def test_thousands_of_false_alarms_are_counted_but_not_all_drawn(make_row, make_gallery, alarms):
    gallery = make_gallery(0, tuple(0.3 + 0.001 * at for at in range(alarms)))
    drawing = exhibition([make_row("yoloms-xs-previous", gallery=gallery)]).detectors[0].drawings[0]
    assert f"{alarms} false alarms" in drawing.counts
    assert drawn(drawing.svg)["alarm"] == MOST_DRAWN
    assert ("The best 200 false alarms are drawn." in drawing.details) == (alarms > MOST_DRAWN)
