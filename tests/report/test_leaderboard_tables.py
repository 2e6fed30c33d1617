"""The tables: figures by hand, dashes where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltbox.provenance import Begun, read_provenance
from tiltbox.records import Complexity
from tiltbox.report.collect import Row
from tiltbox.report.leaderboard_tables import (
    angle_table,
    class_table,
    duration,
    model_table,
    pair_table,
    published_table,
    relative,
    run_table,
    source_table,
    terminal_table,
    training_table,
)
from tiltbox.report.uncertainty import uncertainty

PAIR = ("yoloms-xs-previous", "yoloms-xs-current")


def texts(row) -> list[str]:
    return [cell.text for cell in row]


@pytest.fixture
def pair(make_row) -> list[Row]:
    cheaper = Complexity(input=(1, 3, 1024, 1024), params=5_090_000, flops=22_020_000_000)
    return [make_row(PAIR[0], 0.40), make_row(PAIR[1], 0.4554, (3.04, 22), complexity=cheaper)]


def test_what_is_not_known_is_a_dash():
    row = Row("mine", "mini")
    (line,) = model_table([row], Path()).rows
    assert texts(line) == ["mine", *["–"] * 13]


def test_without_content_there_is_no_table(published):
    rows = [Row("mine", "mini")]
    assert published_table(rows, published) is None
    assert class_table(rows, published) is None
    assert angle_table(rows) is None
    assert pair_table(rows) is None
    assert run_table(rows, uncertainty(rows)) is None
    assert training_table(rows) is None
    assert source_table(rows, Path()) is None


def test_model_table_has_the_published_columns(make_row, tmp_path):
    checkpoint = tmp_path / "mini" / "my net" / "checkpoint.pth"
    recipe = {"pretrained": "https://x.org/yoloms_coco/a.pth"}
    record = checkpoint.with_name("metrics.json.provenance.json")
    row = make_row(PAIR[0], 0.75877, checkpoint=checkpoint, record=record, recipe=recipe)
    table = model_table([row], tmp_path / "out")
    assert table.columns == (
        *("model", "pretrain", "aug", "mAP", "AP50", "AP75", "angle error (°)", "p90 (°)"),
        *("params (M)", "FLOPs (G)", "batch size", "config", "checkpoint", "record"),
    )
    (line,) = table.rows
    assert texts(line) == [
        *(PAIR[0], "COCO", "flip, RR", "20.00", "75.88", "10.00", "4.2", "20.0", "4.48", "22.24", "2 × 4"),
        *("–", "checkpoint.pth", "scores"),
    ]
    assert line[-2].link == "../mini/my%20net/checkpoint.pth"
    assert line[-1].link == "../mini/my%20net/metrics.json.provenance.json"


@pytest.mark.parametrize(
    ("pretrained", "shown"),
    [(None, "none"), ("/a/COCO_xs.pth", "COCO"), ("w/mine.pth", "mine.pth"), ("a/x-in1k.pth", "ImageNet")],
)
def test_pretraining_is_named(make_row, pretrained, shown):
    row = make_row(PAIR[0], recipe={"pretrained": pretrained})
    assert model_table([row], Path()).rows[0][1].text == shown


def test_a_pair_and_its_difference(pair):
    """Without intervals only the exact figures have a colour."""
    table = pair_table(pair)
    assert table.columns[1:4] == ("mAP", "AP50", "AP75") and table.group == 4
    assert [texts(row) for row in table.rows] == [
        [PAIR[0], "20.00", "40.00", "10.00", "4.2", "20.0", "4.48", "22.24"],
        [PAIR[1], "20.00", "45.54", "10.00", "3.0", "22.0", "5.09", "22.02"],
        ["difference", "±0.00", "+5.54", "±0.00", "−1.2", "+2.0", "+0.61", "−0.22"],
        ["95 % interval", "–", "–", "–", "", "", "", ""],
    ]
    kinds = [cell.kind for cell in table.rows[2]]
    assert kinds == ["", "", "", "", "", "", "worse", "better"]


def test_a_difference_is_that_of_the_figures_shown(make_row):
    """30.344 and 25.286 are shown as 30.34 and 25.29, so their difference is 5.05, not 5.06."""
    table = pair_table([make_row(PAIR[0], 0.30344), make_row(PAIR[1], 0.25286)])
    assert [row[2].text for row in table.rows] == ["30.34", "25.29", "−5.05", "–"]


def test_a_difference_needs_both(make_row):
    table = pair_table([make_row(PAIR[0]), make_row(PAIR[1], metrics=None)])
    assert texts(table.rows[2]) == ["difference", *"–––––", "±0.00", "±0.00"]


def test_what_angles_mean(pair):
    table = model_table(pair, Path())
    assert sum("Angle error: degrees, from 0 to 90" in note for note in table.notes) == 1
    assert not any(cell.kind for row in table.rows for cell in row)


def test_a_difference_that_is_seen_has_a_colour(with_outcomes):
    """One detector finds 28 of 30 objects, one 20 and one 19."""
    rows = [with_outcomes(name, found) for name, found in ((PAIR[0], 19), (PAIR[1], 28))]
    sure = uncertainty(rows)
    change, bounds = pair_table(rows, sure).rows[2:4]
    assert [cell.kind for cell in change[1:4]] == ["better"] * 3
    assert all(cell.text.startswith("+") and " to +" in cell.text for cell in bounds[1:4])
    best = [[cell.kind for cell in row[3:6]] for row in model_table(rows, Path(), sure).rows]
    assert best == [["", "", ""], ["best"] * 3]
    assert "differ significantly (95 %) in AP50, AP75 and mAP" in terminal_table(rows, sure)


def test_a_difference_that_chance_would_make_has_none(with_outcomes):
    rows = [with_outcomes(name, found) for name, found in ((PAIR[0], 20), (PAIR[1], 22))]
    sure = uncertainty(rows)
    table = pair_table(rows, sure)
    assert not any(cell.kind for cell in table.rows[2][1:4])
    assert not any(cell.kind for row in model_table(rows, Path(), sure).rows for cell in row[3:6])
    said = f"{PAIR[0]} and {PAIR[1]}: no difference can be seen at 95 % in AP50, AP75 and mAP."
    assert said in table.notes and terminal_table(rows, sure).endswith(said)
    assert any("paired bootstrap over images" in note for note in table.notes)


def test_several_seeds_are_a_mean_and_a_deviation(with_outcomes):
    """20 and 28 of 30 objects found with seeds 0 and 1."""
    row = with_outcomes(PAIR[0], 20, 28)
    sure = uncertainty([row])
    line, *runs = run_table([row], sure).rows
    ap50s = [run.metrics.AP50 for run in row.runs]
    mean, deviation = (sum(ap50s) / 2, abs(ap50s[0] - ap50s[1]) / 2**0.5)
    assert texts(line)[:2] == [PAIR[0], "0, 1"]
    assert texts(line)[3] == f"{100 * mean:.2f} ± {100 * deviation:.2f}"
    low, high = map(float, texts(line)[6].split(" to "))
    assert low < 100 * mean < high
    assert [texts(each)[0] for each in runs] == [f"{PAIR[0]}, seed 0", f"{PAIR[0]}, seed 1"]
    assert [texts(each)[3] for each in runs] == [f"{100 * value:.2f}" for value in ap50s]
    assert f"{100 * mean:.2f} ± " in terminal_table([row], sure)
    assert training_table([row]).rows[-1][1].text == "0, 1"


def test_one_seed_is_a_line(with_outcomes):
    row = with_outcomes(PAIR[0], 20)
    (line,) = run_table([row], uncertainty([row])).rows
    assert texts(line)[1] == "0" and "±" not in texts(line)[3]


def test_results_without_angle_errors(make_row, published):
    """Figures of an older version beside one of this version: dashes, and no column by class."""
    old, new = make_row(PAIR[0], angle=None), make_row(PAIR[1])
    assert [texts(row)[6:8] for row in model_table([old, new], Path()).rows] == [
        ["–", "–"],
        ["4.2", "20.0"],
    ]
    assert texts(pair_table([old, new]).rows[2])[4:6] == ["–", "–"]
    assert angle_table([old, new]).columns == ("class", f"{PAIR[1]}, median", f"{PAIR[1]}, p90")
    assert angle_table([old]) is None
    assert not any("Angle" in note for note in model_table([old], Path()).notes)


def test_angle_errors_by_class(pair):
    table = angle_table(pair)
    assert table.columns[1:3] == (f"{PAIR[0]}, median", f"{PAIR[0]}, p90") and table.total
    assert [texts(row) for row in table.rows] == [
        ["plane", "4.2", "20.0", "3.0", "22.0"],
        ["ship", "–", "–", "–", "–"],
        ["all", "4.2", "20.0", "3.0", "22.0"],
    ]
    assert table.notes == ("–: no elongated object of that class was found.",)


def test_published_beside_ours(make_row, published):
    table = published_table([make_row(PAIR[0], 0.40), Row("mine", "mini")], published)
    assert [name.split(", ")[-1] for name in table.columns[1:3]] == ["ours", "published"]
    assert [texts(row) for row in table.rows] == [
        [PAIR[0], "4.48", "4.48", "22.24", "22.24", "20.00", "49.30", "40.00", "75.88", "10.00", "53.81"]
    ]


def test_classes_and_their_mean(make_row, published):
    table = class_table([make_row(PAIR[0], 0.4), make_row(PAIR[1], metrics=None)], published)
    assert table.columns == ("class", PAIR[0])
    assert [texts(row) for row in table.rows] == [["plane", "40.00"], ["ship", "–"], ["mean", "40.00"]]
    assert table.notes == ("–: no objects of that class.",)


def test_published_classes_stand_beside_comparable_scores_only(make_row, published):
    row = make_row(PAIR[0])
    metrics = row.metrics.model_copy(update={"dataset": "dota", "split": "test"})
    table = class_table([make_row(PAIR[0], dataset="dota", metrics=metrics)], published)
    assert table.columns == ("class", PAIR[0], f"{PAIR[0]}, published")
    assert [row[2].text for row in table.rows] == ["89.44", "88.71", "75.88"]


def test_training_facts(make_row):
    table = training_table([make_row(PAIR[0]), Row("mine", "mini")])
    facts = {label.text: value.text for label, value in table.rows}
    assert table.columns == ("setting", PAIR[0])
    assert facts["epochs"] == "6" and facts["time"] == "12 min 34 s" and facts["torch"] == "2.13.0"
    assert facts["settings"] == "0123456789ab" and facts["commit"] == "abc1234"


def test_sources(make_row, tmp_path):
    """A line for each training; links to the files that are there."""
    (tmp_path / "a b/train").mkdir(parents=True)
    (tmp_path / "a b/train/history.csv").touch()
    recipe = {"git_commit": "abc1234-dirty", "data": {"contents": "f" * 32}, "seed": 3}
    other = make_row(PAIR[0], recipe=recipe, folder=tmp_path / "a b")
    table = source_table([make_row(PAIR[0], others=(other,)), Row("mine", "mini")], tmp_path)
    first, second = (dict(zip(table.columns, line, strict=True)) for line in table.rows)
    assert (first["seed"].text, first["commit"].text, first["patches"].text) == ("0", "abc1234", "–")
    assert (second["seed"].text, second["commit"].text, second["patches"].text) == ("3", "abc1234+", "f" * 12)
    assert (first["processor"].text, first["started (UTC)"].text) == ("CPU", "–")  # without a record
    assert (first["time"].text, first["time"].sort) == ("12 min 34 s", 754.0)
    assert (second["losses"].link, second["weights"].link) == ("a%20b/train/history.csv", None)


def test_the_machine_comes_from_the_record(make_row, tmp_path):
    Begun("train").record(tmp_path / "provenance.json", [], gpu="NVIDIA H100")
    record = read_provenance(tmp_path / "provenance.json")
    (line,) = source_table([make_row(PAIR[0], provenance=record)], tmp_path).rows
    assert line[5].text.startswith("NVIDIA H100") and line[6].text == record.started[:16].replace("T", " ")


def test_terminal_table(pair):
    rule = "─" * 87
    assert terminal_table(pair).splitlines() == [
        "model                            mAP   AP50   AP75  angle°  p90°  params (M)  FLOPs (G)",
        rule,
        "yoloms-xs-previous             20.00  40.00  10.00     4.2  20.0        4.48      22.24",
        "yoloms-xs-current              20.00  45.54  10.00     3.0  22.0        5.09      22.02",
        rule,
        "yoloms-xs: current − previous  ±0.00  +5.54  ±0.00    −1.2  +2.0       +0.61      −0.22",
    ]


def test_terminal_table_without_pairs_has_no_differences():
    assert terminal_table([Row("mine", "mini")]).splitlines()[2:] == [
        "mine     –     –     –       –     –           –          –"
    ]


def test_several_pairs_of_a_size_are_told_apart(make_row):
    rows = [make_row(name) for name in (*PAIR, "yoloms-xs-current-wide")]
    labels = [line.split("  ")[0] for line in terminal_table(rows).splitlines()[-2:]]
    assert labels == [
        "yoloms-xs: current − previous",
        "yoloms-xs: current-wide − previous",
    ]


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(Path("results/a.pth"), tmp_path / "results") == "a.pth"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (93784, "26 h 3 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
