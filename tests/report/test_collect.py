"""Which folders are variants, and in what order they come."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tiltbox.errors import DataError
from tiltbox.model.variants import load_variants
from tiltbox.report.collect import Row, class_names, collect
from tiltbox.report.comparison import left_out_note

COUNTS = {"input": [1, 3, 64, 64], "params": 7, "flops": 9}


def add(results, *names: str, stage: str = "complexity") -> None:
    for name in names:
        (results / name / stage).mkdir(parents=True)


def test_a_missing_folder_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"folder not found; run 'snakemake --cores all all_variants' first"):
        collect(tmp_path / "mini", {})


def test_a_folder_without_variants_says_what_to_run(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "leaderboard.md").touch()
    with pytest.raises(DataError, match="contains no results of any variant"):
        collect(tmp_path, {})


def test_an_unfinished_variant_is_an_empty_row(tmp_path):
    add(tmp_path / "mini", "mine", stage="train")
    assert collect(tmp_path / "mini", {}) == [Row("mine", "mini", folder=tmp_path / "mini/mine")]


def test_the_table_gives_the_order_and_the_design(tmp_path):
    add(tmp_path, "zebra", "yoloms-xs-current", "yoloms-l-previous", "antelope")
    rows = collect(tmp_path, load_variants().variants)
    assert [row.name for row in rows] == ["yoloms-l-previous", "yoloms-xs-current", "antelope", "zebra"]
    assert [(row.size, row.series, row.compared_with) for row in rows[:3]] == [
        ("l", "YOLO-MS previous", ()),
        ("xs", "YOLO-MS current", ("yoloms-xs-previous", "rtmdet-r-tiny")),
        (None, None, ()),
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


def test_the_number_of_classes_is_that_of_the_scores_or_of_the_training(make_row):
    row = make_row("yoloms-xs-previous", recipe={"data": {"classes": 15}})
    assert (row.class_count, replace(row, metrics=None).class_count) == (2, 15)
    assert Row("x", "mini").class_count is None
    odd = make_row("yoloms-xs-previous", metrics=None, recipe={"data": {"classes": ["plane"]}})
    assert odd.class_count is None


def test_classes_come_in_the_order_of_the_scores(make_row):
    assert class_names([Row("x", "mini")]) == []
    row = make_row("yoloms-xs-previous")
    assert class_names([Row("x", "mini"), row, row]) == ["plane", "ship"]
    assert [row.class_figure(name, "angle_median") for name in ("plane", "tree")] == [4.25, None]
    assert (row.class_ap50("plane"), row.class_ap50("ship"), row.class_ap50("tree")) == (0.5, None, None)


def test_trainings_with_other_seeds(make_row, tmp_path):
    for folder, seed, ap50 in (("mine", 0, 0.5), ("mine/seed-2", 2, 0.7), ("mine/seed-10", 10, 0.9)):
        row = make_row("yoloms-xs-previous", ap50, recipe={"seed": seed})
        add(tmp_path, f"{folder}", stage="train")
        add(tmp_path, f"{folder}", stage="evaluate")
        (tmp_path / folder / "train/train.json").write_text(row.training.model_dump_json())
        (tmp_path / folder / "evaluate/metrics.json").write_text(row.metrics.model_dump_json())
    add(tmp_path, "mine")
    (tmp_path / "mine/complexity/complexity.json").write_text(json.dumps(COUNTS))
    (row,) = collect(tmp_path, {})
    assert (row.name, row.seeds, row.figure("params")) == ("mine", (0, 2, 10), 7)
    assert [run.metrics.AP50 for run in row.runs] == [0.5, 0.7, 0.9]
    assert row.figure("AP50") == pytest.approx(0.7) and row.spread("AP50") == pytest.approx(0.2)
    assert row.class_ap50("plane") == pytest.approx(0.7)


def test_a_seed_other_than_the_first_alone(make_row, tmp_path):
    add(tmp_path, "mine/seed-3", stage="train")
    row = make_row("yoloms-xs-previous", recipe={"seed": 3})
    (tmp_path / "mine/seed-3/train/train.json").write_text(row.training.model_dump_json())
    (row,) = collect(tmp_path, {})
    assert (row.name, row.seeds, row.others) == ("mine", (3,), ()) and row.spread("AP50") is None


@pytest.mark.parametrize(
    "change",
    [{"epochs": 12}, {"pretrained": "coco.pth"}, {"data": {"contents": "edited"}}, {"labels": "edited"}],
)
def test_what_is_left_from_before_a_change_is_not_averaged(make_row, tmp_path, change):
    """The folder of a seed that was not run again, and a folder that is not a seed's."""
    for folder, seed, ap50 in (("mine", 0, 0.5), ("mine/seed-1", 1, 0.9), ("mine/seed-1-backup", 1, 0.9)):
        recipe = {"seed": seed, **(change if seed and "labels" not in change else {})}
        row = make_row("yoloms-xs-previous", ap50, recipe=recipe)
        labels = change.get("labels", "") if seed else ""
        metrics = row.metrics.model_copy(update={"labels": labels})
        add(tmp_path, folder, stage="train")
        add(tmp_path, folder, stage="evaluate")
        (tmp_path / folder / "train/train.json").write_text(row.training.model_dump_json())
        (tmp_path / folder / "evaluate/metrics.json").write_text(metrics.model_dump_json())
    (row,) = collect(tmp_path, {})
    assert (row.seeds, row.left_out, row.figure("AP50")) == ((0,), (1,), 0.5)
    assert left_out_note([row]).startswith("Trained or scored differently, so left out: mine with seed 1.")
