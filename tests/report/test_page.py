"""The page: well formed, self-contained, accessible, and safe with any name."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from tiltbox.records import GalleryObject
from tiltbox.report.collect import Row
from tiltbox.report.examples import CROWDED, IMAGES, MOST_BYTES
from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.page import page
from tiltbox.report.uncertainty import uncertainty

VOID = {"meta", "br", "link", "img"}


class Tags(HTMLParser):
    """Collects tags with their attributes and checks that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def named(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture
def render(published, tmp_path):
    def render(rows) -> str:
        return page(leaderboard(rows, tmp_path, published), rows)

    return render


@pytest.fixture
def text(make_row, make_gallery, render, tmp_path) -> str:
    checkpoint = tmp_path / "x" / "checkpoint.pth"
    first = make_row("yoloms-xs-previous", checkpoint=checkpoint, gallery=make_gallery(1))
    return render([first, make_row("yoloms-xs-current", 0.6, gallery=make_gallery(3, ()))])


def test_an_unfinished_variant_has_a_page(render):
    tags = Tags(render([Row("mine", "mini")]))
    assert len(tags.named("table")) == 1 and not tags.named("svg")


def test_nothing_comes_from_elsewhere(text):
    tags = Tags(text)
    assert not tags.named("link", "img", "iframe", "object") and tags.named("script") == [{}]
    links = [a.get(key) for _, a in tags.found for key in ("href", "src", "xlink:href") if a.get(key)]
    outer = [link for link in links if not link.startswith(("#", "data:image/"))]
    assert outer == ["x/checkpoint.pth"]
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(text):
    tags = Tags(text)
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = [a["href"][1:] for a in tags.named("a") if a["href"].startswith("#")]
    assert len(inner) == 9 and set(inner) <= set(ids)
    used = {a["href"][1:] for a in tags.named("use") if "href" in a}
    named = {a[key] for _, a in tags.found for key in ("aria-labelledby", "aria-describedby") if key in a}
    assert used | named <= set(ids)


def test_tables_can_be_read_aloud(text):
    tags = Tags(text)
    assert len(tags.named("caption")) == len(tags.named("table")) == 7
    assert {attributes.get("scope") for attributes in tags.named("th")} == {"row", "col"}
    assert tags.named("html") == [{"lang": "en"}]


def test_pictures_and_frames_have_names(text):
    tags = Tags(text)
    assert all({"aria-label", "aria-labelledby"} & {*a} for _, a in tags.found if a.get("role") == "region")
    seen = [a for a in tags.named("svg") if a.get("aria-hidden") != "true"]
    assert seen and all(a["role"] == "img" and "aria-labelledby" in a for a in seen)
    assert len(tags.named("title")) > len(seen) and len(tags.named("desc")) == len(seen)


def test_headings_follow_each_other(text):
    levels = [int(tag[1]) for tag, _ in Tags(text).found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert {"header", "nav", "main"} <= {tag for tag, _ in Tags(text).found}


def test_all_plots_and_both_colour_schemes_are_there(text):
    plots = [a for a in Tags(text).named("svg") if "boxes" not in a.get("class", "") and "role" in a]
    assert len(plots) == 4 and "prefers-color-scheme: dark" in text
    used, defined = set(re.findall(r"var\((--\w+)\)", text)), set(re.findall(r"(--\w+):", text))
    assert used <= defined


def test_names_are_escaped(make_row, make_gallery, render):
    hostile = "<script>alert(1)</script>"
    gallery = make_gallery(
        objects=(GalleryObject(kind=hostile, corners=[0] * 8, difficult=False),), name=hostile
    )
    row = make_row("yoloms-xs-previous", dataset=hostile, recipe={"device": hostile}, gallery=gallery)
    assert hostile not in render([row])


def test_differences_and_the_best_are_marked_where_they_can_be_seen(text, with_outcomes, published):
    assert 'style="--share: 0.200">60.00</td>' in text and "<span>50</span>" in text  # of 50 to 100
    assert '<td class="better">+10.00</td>' not in text and 'class="best"' not in text
    rows = [with_outcomes("yoloms-xs-previous", 19), with_outcomes("yoloms-xs-current", 28)]
    sure = uncertainty(rows)
    better, worse = rows[1].figure("AP50"), rows[0].figure("AP50")
    text = page(leaderboard(rows, Path(), published, sure), rows, sure)
    assert f'<td class="better">+{100 * better - 100 * worse:.2f}</td>' in text
    assert f'<td class="best">{100 * better:.2f}</td>' in text


def test_tables_whose_rows_belong_together_are_not_sortable(text):
    sortable = re.findall(r'<table( class="sortable")?>\s*<caption><span>(\w+)', text)
    assert [word for kind, word in sortable if not kind] == ["Detectors", "How"]


def test_the_mean_stays_below_whatever_is_sorted(text):
    foot = re.search("<tfoot>(.*?)</tfoot>", text, re.DOTALL)[1]
    assert ">mean</th>" in foot and foot.count("<tr") == 1


def test_the_page_of_six_detectors_stays_small(make_row, make_gallery, render):
    """With pictures as large, windows as crowded and false alarms as many as they may be."""
    image = make_gallery(0, tuple(0.3 + 0.001 * at for at in range(300))).images[0]
    box = GalleryObject(kind="large-vehicle", corners=[1023.4] * 8, difficult=False)
    uri = f"data:image/webp;base64,{'A' * (MOST_BYTES * 4 // 3)}"
    pictures = {"picture": uri, "objects": (box,) * CROWDED}
    images = tuple(image.model_copy(update=pictures | {"name": f"P{at}"}) for at in range(IMAGES))
    gallery = make_gallery().model_copy(update={"images": images})
    names = [f"yoloms-{size}-{generation}" for size in "xsl" for generation in ("previous", "current")]
    assert len(render([make_row(name, gallery=gallery) for name in names])) < 3_000_000
