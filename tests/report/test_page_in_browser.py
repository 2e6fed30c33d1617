"""The page in a real browser, if one is installed."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.page import page
from tiltbox.settings.published import load_published

# A window is at least 500 px wide, but a frame in it can be smaller; measurements in it go to the title.
FRAME = """<!doctype html><title></title>
<script>addEventListener("message", message => {{ document.title = message.data; }});</script>
<iframe src="{name}" style="border: 0; width: {width}px; height: 900px"></iframe>"""
MEASURE = """<script>
const all = selector => [...document.querySelectorAll(selector)];
parent.postMessage(JSON.stringify((() => {{ {code} }})()), "*");
</script>"""

LAYOUT = """
const root = document.documentElement;
const seen = each => each.checkVisibility() && each.getBoundingClientRect().width > 100;
const wide = all("body *").filter(each => !each.closest(".scroll, .skip"))
  .filter(each => each.getBoundingClientRect().right > root.clientWidth + 1);
return {
  tables: all("table").filter(seen).length,
  drawn: all("svg[role=img]").filter(seen).length,
  overflow: root.scrollWidth - root.clientWidth,
  wide: wide.map(each => each.outerHTML.slice(0, 80)),
  cut: all(".scroll").filter(each => each.scrollWidth > each.clientWidth)
    .filter(each => getComputedStyle(each).overflowX !== "auto").length,
  ground: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector("svg text")).fill,
  unreachable: all("a, button, select, summary, .scroll").filter(each => each.tabIndex < 0).length,
};"""
SORT = """
const table = document.querySelector("#models table"), heads = [...table.tHead.rows[0].cells];
const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
const column = heads.findIndex(head => head.textContent === "AP50");
const states = [];
for (let press = 0; press < 3; press += 1) {
  heads[column].querySelector("button").click();
  states.push([heads[column].getAttribute("aria-sort"), order()]);
}
heads[0].querySelector("button").click();
return { before: table.dataset.before, states, names: order(), sorted: heads.map(head => head.ariaSort) };"""
CHOOSE = """
const panels = all(".detectors details");
const shown = () => panels.filter(each => each.checkVisibility()).map(each => each.dataset.name);
const [first, second] = all(".choice select");
const choose = (list, name) => {
  list.value = name;
  list.dispatchEvent(new Event("change", { bubbles: true }));
};
const found = [shown()];
choose(second, "");
found.push(shown());
choose(first, "yoloms-xs-current");
found.push(shown());
return found;"""
WITHOUT = """
const shown = selector => all(selector).filter(each => each.checkVisibility()).length;
return { panels: shown(".detectors details"), boxes: shown("svg.boxes"), rows: shown("tbody tr"),
  controls: shown("select, button"), open: shown("details[open]") };"""
PRINT = """
const shown = selector => all(selector).filter(each => each.checkVisibility()).length;
const root = document.documentElement;
const right = Math.max(...all("table, svg").map(each => each.getBoundingClientRect().right));
return { panels: shown(".detectors details"), controls: shown("nav, form, .skip"),
  cut: Math.max(0, right - root.clientWidth), overflow: root.scrollWidth - root.clientWidth };"""
LINES = """
const style = kind => getComputedStyle(document.querySelector(`svg.boxes g.${kind} path`));
return Object.fromEntries(["label", "hit", "miss", "alarm", "aside"].map(kind =>
  [kind, [style(kind).fill, style(kind).strokeDasharray, style(kind).stroke]]));"""


@pytest.fixture
def measured(make_row, make_gallery, chromium, tmp_path) -> Callable:
    """The result of a script that runs in the page, at a width."""
    rows = [
        make_row("yoloms-xs-previous", 0.4, gallery=make_gallery(1)),
        make_row("yoloms-xs-current", 0.5, gallery=make_gallery(3, ())),
        make_row("yoloms-s-current", None, metrics=None),
    ]
    text = page(leaderboard(rows, tmp_path, load_published()), rows)

    def measure(code: str, width: int = 1400, edit: Callable[[str], str] = str):
        measured = edit(text) + MEASURE.format(code=code)
        (tmp_path / "leaderboard.html").write_text(measured, encoding="utf-8")
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(name="leaderboard.html", width=width))
        return json.loads(title_of(chromium, frame, width + 50))

    return measure


def title_of(chromium: list[str], file: Path, width: int) -> str:
    """The state after loading."""
    options = [f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom"]
    command = [*chromium, *options, file.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return html.unescape(re.search("<title>(.*?)</title>", shown, re.DOTALL)[1])


@pytest.mark.parametrize("width", [360, 1400])
def test_tables_and_plots_are_laid_out(measured, width):
    """All are visible, wide ones scroll in their own frame, and text contrasts with the background."""
    found = measured(LAYOUT, width)
    assert (found["tables"], found["drawn"] >= 5) == (7, True)
    assert (found["overflow"], found["wide"], found["cut"]) == (0, [], 0)
    assert found["ink"] != found["ground"]
    assert found["unreachable"] == 0  # all buttons can be reached by keyboard


def test_a_press_on_a_column_sorts(measured):
    """Best first, then reversed, then the original order; rows without a score come last."""
    xs, best, none = "yoloms-xs-previous", "yoloms-xs-current", "yoloms-s-current"
    found = measured(SORT)
    assert found["states"] == [
        ["descending", [best, xs, none]],
        ["ascending", [xs, best, none]],
        [None, [xs, best, none]],
    ]
    assert found["names"] == sorted([xs, best, none])
    assert found["sorted"][0] == "ascending" and set(found["sorted"][1:]) == {None}


def test_lists_choose_what_the_gallery_shows(measured):
    xs = ["yoloms-xs-previous", "yoloms-xs-current"]
    assert measured(CHOOSE) == [xs, xs[:1], xs[1:]]
    assert measured(CHOOSE, 360)[0] == xs[:1]  # two do not fit


def test_without_script_all_is_there(measured):
    """There are no buttons without effect, either."""
    found = measured(WITHOUT, edit=lambda text: re.sub("<script>.*?</script>", "", text, flags=re.DOTALL))
    assert found == {"panels": 2, "boxes": 2, "rows": found["rows"], "controls": 0, "open": 2}
    assert found["rows"] > 20


def test_lines_differ_without_colour(measured):
    found = measured(LINES)
    assert {fill for fill, _, _ in found.values()} == {"none"}
    dashes = {kind: dash for kind, (_, dash, _) in found.items()}
    assert dashes.pop("label") == dashes["hit"]  # these two by width
    assert len(set(dashes.values())) == len({colour for _, _, colour in found.values()}) - 1 == 4


def test_paper_shows_all_and_cuts_nothing(measured):
    """By the rules for print, applied to a frame as wide as the page: A4 across without margins."""
    paper = measured(PRINT, 1030, edit=lambda text: text.replace("@media print {", "@media all {"))
    assert paper == {"panels": 2, "controls": 0, "cut": 0, "overflow": 0}
    assert measured(PRINT, 360)["panels"] == 1
