"""Reads what the stages wrote: a missing file is not an error, a malformed one is, with its key."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest

from tiltbox.errors import DataError
from tiltbox.records import Complexity, CurvePoint, Epoch, Metrics, Training, read_record, read_rows

COUNTS = {"variant": "x", "input": [1, 3, 1024, 1024], "params": 4, "flops": 22, "unit": "multiply-adds"}
TRAINING = {
    "size": "xs",
    "series": "YOLO-MS current",
    "pretrained": None,
    "augmentation": [],
    "epochs": 1,
    "steps": 3,
    "images_per_step": 2,
    "processes": 1,
    "learning_rate": 0.1,
    "image_size": 64,
    "seed": 0,
    "device": "CPU",
    "seconds": 1,
    "config_hash": "",
    "git_commit": "",
    "versions": {},
}
ANGLE = {"median": 4.5, "p90": 20, "objects": 2}
CLASS = {"AP50": 0.5, "AP75": None, "mAP": 0.2, "angle_error": ANGLE, "objects": 3, "detections": 9}
METRICS = {
    "dataset": "mini",
    "split": "val",
    "images": 1,
    "objects": 3,
    "AP50": 0.5,
    "AP75": 0.1,
    "mAP": 0.2,
    "angle_error": ANGLE,
    "classes": {"ship": CLASS},
}


def test_a_missing_file_is_not_an_error(tmp_path):
    assert read_record(Metrics, tmp_path / "metrics.json") is None
    assert read_rows(Epoch, tmp_path / "history.csv") == ()


def test_a_record_is_read(tmp_path):
    path = tmp_path / "complexity.json"
    path.write_text(json.dumps(COUNTS))
    assert read_record(Complexity, path) == Complexity(
        variant="x", input=(1, 3, 1024, 1024), params=4, flops=22
    )


def test_a_perfect_ap_may_be_a_hair_above_one(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**METRICS, "AP50": 1.0000000000000002}))
    assert read_record(Metrics, path).AP50 > 1


def test_angle_errors_are_read(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(METRICS))
    found = read_record(Metrics, path)
    assert (found.angle_median, found.angle_p90, found.classes["ship"].angle_p90) == (4.5, 20, 20)
    nothing = {"median": None, "p90": None, "objects": 0}
    path.write_text(json.dumps({**METRICS, "angle_error": nothing}))
    assert read_record(Metrics, path).angle_median is None


def test_metrics_of_a_version_without_angle_errors_are_read(tmp_path):
    path = tmp_path / "metrics.json"
    rows = {"ship": {key: value for key, value in CLASS.items() if key != "angle_error"}}
    path.write_text(json.dumps({k: v for k, v in METRICS.items() if k != "angle_error"} | {"classes": rows}))
    found = read_record(Metrics, path)
    assert (found.angle_median, found.classes["ship"].angle_p90, found.AP50) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"metrics.json:1: is not valid JSON .*; run 'tiltbox evaluate' again"),
        ('{"dataset": "mini",\n oops', r"metrics.json:2: is not valid JSON"),
        ("[]", r"metrics.json: contains no keys"),
        (json.dumps({k: v for k, v in METRICS.items() if k != "mAP"}), r"metrics.json: mAP: is missing"),
        (json.dumps({**METRICS, "AP50": "high"}), r"metrics.json: AP50: 'high' is not accepted"),
        (json.dumps({**METRICS, "AP50": 53.4}), r"metrics.json: AP50: 53.4 is not accepted"),
        (json.dumps({**METRICS, "AP50": math.nan}), r"metrics.json: AP50: nan is not accepted"),
        (
            json.dumps({**METRICS, "angle_error": {**ANGLE, "p90": 91}}),
            r"metrics.json: angle_error.p90: 91 is not accepted",
        ),
        (json.dumps({**METRICS, "images": -1}), r"metrics.json: images: -1 is not accepted"),
        (
            json.dumps({**METRICS, "classes": {"ship": {**CLASS, "objects": None}}}),
            r"metrics.json: classes.ship.objects: None is not accepted",
        ),
    ],
)
def test_malformed_json_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "evaluate" / "metrics.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_record(Metrics, path)


def test_an_endless_training_is_refused(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({**TRAINING, "seconds": math.inf}))
    with pytest.raises(DataError, match=r"train.json: seconds: inf is not accepted"):
        read_record(Training, path)


def test_history_has_scores_where_it_was_validated(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_AP50,val_mAP\n1,2.0,,\n2,1.5,0.5,0.25\n")
    assert [row.val_AP50 for row in read_rows(Epoch, path)] == [None, 0.5]
    path.write_text("epoch,loss\n1,2.0\n")
    assert read_rows(Epoch, path)[0].val_mAP is None


def test_history_keeps_a_loss_that_is_not_a_number(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,step,lr,loss\r\n1,75,0.004,1.5\r\n2,149,0.004,nan\r\n")
    first, second = read_rows(Epoch, path)
    assert (first.epoch, first.loss, second.epoch) == (1, 1.5, 2) and math.isnan(second.loss)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "history.csv: epoch: column not found"),
        ("epoch,step\n1,2\n", "history.csv: loss: column not found"),
        ("epoch,loss\n1,0.5\n2,low\n", "history.csv:3: loss: 'low' is not accepted"),
        ("epoch,loss\n1,0.5\n\n2,low\n", "history.csv:4: loss: 'low' is not accepted"),
        ("epoch,loss\n1\n", "history.csv:2: loss: None is not accepted"),
        ("epoch,loss\n1,0.5\n2,0,5\n", "history.csv:3: has more cells than the first line"),
    ],
)
def test_malformed_history_names_its_line(tmp_path, text, message):
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(Epoch, path)


def test_a_column_is_known_by_its_name_in_the_file(tmp_path):
    path = tmp_path / "pr_curves.csv"
    path.write_text("class,threshold,recall,precision,score\nship,0.50,0.25,1.0,0.9\n")
    (point,) = read_rows(CurvePoint, path)
    assert (point.name, point.threshold, point.recall, point.precision) == ("ship", 0.5, 0.25, 1)
    path.write_text("name,threshold,recall,precision\n")
    with pytest.raises(DataError, match=r"pr_curves.csv: class: column not found"):
        read_rows(CurvePoint, path)


@pytest.mark.parametrize("reader", [partial(read_rows, Epoch), lambda path: read_record(Metrics, path)])
def test_a_file_that_cannot_be_read_is_named(tmp_path, reader):
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not valid UTF-8"):
        reader(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        reader(path)
