"""CSV: raw numbers, empty where not known."""

from __future__ import annotations

import csv

from tiltbox.report import leaderboard_csv as module
from tiltbox.report.collect import Row
from tiltbox.report.leaderboard_csv import leaderboard_csv


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_an_unfinished_variant_is_a_row_of_empty_fields(tmp_path):
    (row,) = read(leaderboard_csv([Row("mine", "mini")], tmp_path))
    assert {key: value for key, value in row.items() if value} == {"variant": "mine", "dataset": "mini"}


def test_numbers_are_raw(make_row, tmp_path):
    row = make_row("yoloms-xs-previous", 1 / 3, config=tmp_path / "a, b" / "config.py")
    first, second = read(leaderboard_csv([row, Row("mine", "mini")], tmp_path))
    assert float(first["AP50"]) == float(first["AP50/plane"]) == 1 / 3
    assert (first["params"], first["flops"], first["input"]) == ("4480000", "22240000000", "1x3x1024x1024")
    assert (first["augmentation"], first["pretrained"], first["seed"]) == ("flip+RR", "", "0")
    assert first["config"] == "a, b/config.py"
    assert (first["angle_median"], first["angle_p90"], second["angle_median"]) == ("4.25", "20.0", "")
    assert (first["angle_median/plane"], first["angle_p90/plane"]) == ("4.25", "20.0")
    assert first["angle_median/ship"] == first["angle_p90/ship"] == ""
    assert first["AP50/ship"] == second["AP50/plane"] == ""


def test_every_column_is_documented(make_row, tmp_path):
    (row,) = read(leaderboard_csv([make_row("yoloms-xs-previous")], tmp_path))
    documented = module.__doc__.replace(",", " ").split()
    plain = [name.split("/")[0] + "/<class>" if "/" in name else name for name in row]
    assert [name for name in plain if name not in documented] == []
