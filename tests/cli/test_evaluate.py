"""What evaluate prints, and refuses."""

from __future__ import annotations

import json

import pytest


def test_a_table_of_scores(source, tmp_path, capsys, run):
    (tmp_path / "task1").mkdir()
    (tmp_path / "task1/Task1_ship.txt").write_text("P1 0.9 0 0 9 0 9 5 0 5\n")
    command = "evaluate {task1} --labels {source}/labelTxt --out {out} --split val"
    assert run(command, task1=tmp_path / "task1", source=source, out=tmp_path / "metrics.json") == 0
    assert "ship                100.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["AP50"] == pytest.approx(1)


@pytest.mark.parametrize("verb", ["merge {task1}", "evaluate {task1} --labels {task1}"])
def test_names_are_for_ultralytics_alone(verb, tmp_path, failure):
    (tmp_path / "Task1_ship.txt").write_text("")
    command = f"{verb} --out {{out}} --names nowhere.yaml"
    line = failure(command, task1=tmp_path, out=tmp_path / "out/metrics.json")
    assert line.endswith("--names: is only for a predictions.json; leave it out")


def test_images_that_are_not_there(tmp_path, failure):
    command = "evaluate {at} --labels {at} --out {at}/metrics.json --images {at}/none"
    assert "none: folder not found" in failure(command, at=tmp_path)


def test_classes_without_a_file_are_named(source, tmp_path, caplog, run):
    (tmp_path / "task1").mkdir()
    (tmp_path / "task1/Task1_plane.txt").write_text("")
    command = "evaluate {task1} --labels {source}/labelTxt --out {out}"
    assert run(command, task1=tmp_path / "task1", source=source, out=tmp_path / "scores/metrics.json") == 0
    assert "14 of 15 classes have no Task1 file, so no detections: baseball-diamond, bridge" in caplog.text


def test_a_run_without_an_experiment(source, tmp_path, failure):
    command = "evaluate {at} --labels {at}/labelTxt --out {out} --track yoloms-xs-current"
    line = failure(command, at=source, out=tmp_path / "metrics.json")
    assert "--track: 'yoloms-xs-current' does not name a run; give EXPERIMENT/RUN" in line
    assert not (tmp_path / "metrics.json").exists()
