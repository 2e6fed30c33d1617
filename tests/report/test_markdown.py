"""Markdown: every line of a table is as long as the others, and nothing breaks out of a cell."""

from __future__ import annotations

from tiltbox.report.cells import Cell, Table
from tiltbox.report.leaderboard import leaderboard
from tiltbox.report.markdown import markdown, markdown_table


def test_an_empty_table_is_its_header():
    assert markdown_table(Table("", ("model", "AP50"), ())) == "| model | AP50 |\n| :---- | ---: |"


def test_cells():
    row = (Cell("a|b"), Cell("x.pth", link="m/x.pth"), Cell("9.00", kind="best"))
    table = markdown_table(Table("", ("a", "b", "c"), (row,)))
    assert table.splitlines()[-1] == "| a\\|b | [x.pth](m/x.pth) | **9.00** |"


def test_the_whole_board(make_row, published, tmp_path):
    rows = [make_row("yoloms-xs-previous"), make_row("yoloms-xs-current", metrics=None)]
    text = markdown(leaderboard(rows, tmp_path, published))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Leaderboard: mini",
        "## Models",
        "## Compared detectors",
        "## Published numbers beside ours",
        "## AP50 by class",
        "## Angle error by class",
        "## Training",
        "## Where the figures come from",
    ]
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    for table in tables:
        assert len({len(line) for line in table}) == 1
        assert len({line.count("|") for line in table}) == 1
