"""The page: well formed, self-contained, accessible, and safe with any name."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tiltbox.report.collect import Row
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
def text(make_row, render, tmp_path) -> str:
    checkpoint = tmp_path / "x" / "checkpoint.pth"
    return render([make_row("yoloms-xs-previous", checkpoint=checkpoint), make_row("yoloms-xs-current", 0.6)])


def test_an_unfinished_variant_has_a_page(render):
    tags = Tags(render([Row("mine", "mini")]))
    assert len(tags.named("table")) == 1 and not tags.named("svg")


def test_nothing_comes_from_elsewhere(text):
    tags = Tags(text)
    assert not tags.named("script", "link", "img", "iframe", "object")
    links = [a.get(key) for _, a in tags.found for key in ("href", "src", "xlink:href") if a.get(key)]
    assert [link for link in links if not link.startswith("#")] == ["x/checkpoint.pth"]
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(text):
    tags = Tags(text)
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = [a["href"][1:] for a in tags.named("a") if a["href"].startswith("#")]
    assert len(inner) == 6 and set(inner) <= set(ids)


def test_tables_can_be_read_aloud(text):
    tags = Tags(text)
    assert len(tags.named("caption")) == len(tags.named("table")) == 6
    assert {attributes.get("scope") for attributes in tags.named("th")} == {"row", "col"}
    assert all("aria-label" in a for _, a in tags.found if a.get("role") in ("img", "region"))
    assert tags.named("html") == [{"lang": "en"}]


def test_all_plots_and_both_colour_schemes_are_there(text):
    assert len(Tags(text).named("svg")) == 3 and "prefers-color-scheme: dark" in text
    used, defined = set(re.findall(r"var\((--\w+)", text)), set(re.findall(r"(--\w+):", text))
    assert used <= defined


def test_names_are_escaped(make_row, render):
    hostile = "<script>alert(1)</script>"
    row = make_row("yoloms-xs-previous", dataset=hostile, recipe={"device": hostile})
    assert "<script" not in render([row])


def test_differences_and_the_best_are_marked_where_they_can_be_seen(text, with_outcomes, published):
    assert 'style="--share: 0.600">60.00</td>' in text
    assert '<td class="better">+10.00</td>' not in text and 'class="best"' not in text
    rows = [with_outcomes("yoloms-xs-previous", 19), with_outcomes("yoloms-xs-current", 28)]
    sure = uncertainty(rows)
    better, worse = rows[1].figure("AP50"), rows[0].figure("AP50")
    text = page(leaderboard(rows, Path("."), published, sure), rows, sure)
    assert f'<td class="better">+{100 * better - 100 * worse:.2f}</td>' in text
    assert f'<td class="best">{100 * better:.2f}</td>' in text
