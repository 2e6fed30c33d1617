"""Which folders are variants, and in what order they come."""

from __future__ import annotations

import json

import pytest

from tiltbox.errors import DataError
from tiltbox.report.collect import Row, class_names, collect
from tiltbox.settings.variants import load_variants

COUNTS = {"input": [1, 3, 64, 64], "params": 7, "flops": 9}


def add(results, *names: str, stage: str = "complexity") -> None:
    for name in names:
        (results / name / stage).mkdir(parents=True)


def test_a_missing_folder_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"no such folder; run 'snakemake --cores all all_variants' first"):
        collect(tmp_path / "mini", {})


def test_a_folder_without_variants_says_what_to_run(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "leaderboard.md").touch()
    with pytest.raises(DataError, match="holds no results of any variant"):
        collect(tmp_path, {})


def test_an_unfinished_variant_is_an_empty_row(tmp_path):
    add(tmp_path / "mini", "mine", stage="train")
    assert collect(tmp_path / "mini", {}) == [Row("mine", "mini")]


def test_the_table_gives_the_order_and_the_design(tmp_path):
    add(tmp_path, "zebra", "yoloms-xs-current", "yoloms-l-previous", "antelope")
    rows = collect(tmp_path, load_variants().variants)
    assert [row.name for row in rows] == ["yoloms-l-previous", "yoloms-xs-current", "antelope", "zebra"]
    assert [(row.size, row.generation) for row in rows[:3]] == [
        ("l", "previous"),
        ("xs", "current"),
        (None, None),
    ]


def test_files_are_found(tmp_path):
    add(tmp_path, "mine")
    add(tmp_path, "mine", stage="train")
    (tmp_path / "mine/complexity/complexity.json").write_text(json.dumps(COUNTS))
    (tmp_path / "mine/train/checkpoint.pth").touch()
    (row,) = collect(tmp_path, {})
    assert (row.figure("params"), row.figure("flops"), row.figure("AP50")) == (7, 9, None)
    assert row.checkpoint == tmp_path / "mine/train/checkpoint.pth" and row.config is None


def test_the_scores_name_the_dataset(make_row, tmp_path):
    metrics = make_row("yoloms-xs-previous").metrics.model_copy(update={"dataset": "harbours"})
    add(tmp_path, "mine", stage="evaluate")
    (tmp_path / "mine/evaluate/metrics.json").write_text(metrics.model_dump_json())
    assert [row.dataset for row in collect(tmp_path, {})] == ["harbours"]


def test_classes_come_in_the_order_of_the_scores(make_row):
    assert class_names([Row("x", "mini")]) == []
    row = make_row("yoloms-xs-previous")
    assert class_names([Row("x", "mini"), row, row]) == ["plane", "ship"]
    assert (row.class_metrics("plane").angle_median, row.class_metrics("tree")) == (4.25, None)
    assert (row.class_ap50("plane"), row.class_ap50("ship"), row.class_ap50("tree")) == (0.5, None, None)
