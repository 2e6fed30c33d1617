from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images.pixels import write_png
from tiltbox.dota.labels import read_labels
from tiltbox.dota.task1 import ClassDetections, no_detections, write_task1
from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.metrics.bootstrap import resampled_aps
from tiltbox.metrics.outcomes_file import read_outcomes
from tiltbox.provenance import file_hash, read_provenance
from tiltbox.records import Gallery, read_record
from tiltbox.stages.evaluate import evaluate, metrics_table, server_block

SHIP, FAR = "0 0 10 0 10 10 0 10", "90 90 99 90 99 99 90 99"
SAMPLE = Path(__file__).resolve().parents[2] / "../shared/dota-sample"

# The AP50 of one published result and its means, from which the server printed its block.
PUBLISHED = (
    0.894423, 0.842147, 0.526321, 0.740728, 0.817644, 0.825135, 0.887083, 0.909023, 0.876583, 0.865006,
    0.630430, 0.588398, 0.765053, 0.691887, 0.521774,
)  # fmt: skip
PUBLISHED_BLOCK = """\
This is your evaluation result for task 1 (VOC metrics):

mAP: 0.7588
ap of each class: plane:0.8944, baseball-diamond:0.8421, bridge:0.5263, ground-track-field:0.7407, \
small-vehicle:0.8176, large-vehicle:0.8251, ship:0.8871, tennis-court:0.9090, basketball-court:0.8766, \
storage-tank:0.8650, soccer-ball-field:0.6304, roundabout:0.5884, harbor:0.7651, swimming-pool:0.6919, \
helicopter:0.5218
COCO style result:

AP50: 0.7588
AP75: 0.5381
mAP: 0.4930
"""


@pytest.fixture
def scene(tmp_path):
    """Two images with a ship each, plus a difficult one; one ship is found, and a false plane."""
    labels, task1 = tmp_path / "labelTxt", tmp_path / "task1"
    labels.mkdir(), task1.mkdir()
    (labels / "P1.txt").write_text(f"imagesource:GoogleEarth\ngsd:0.5\n{SHIP} ship 0\n{FAR} ship 1\n")
    (labels / "P2.txt").write_text(f"{SHIP} ship 0\n")
    (labels / "P3.txt").write_text("")
    for name in DOTA_V1_CLASSES:
        (task1 / f"Task1_{name}.txt").write_text("")
    (task1 / "Task1_ship.txt").write_text(f"P1 0.9 {SHIP}\nP1 0.8 {FAR}\n")
    (task1 / "Task1_plane.txt").write_text(f"P3 0.9 {SHIP}\n")
    return tmp_path


def run(scene, **options) -> dict:
    return evaluate(scene / "task1", scene / "labelTxt", scene / "evaluate" / "metrics.json", **options)


def test_the_metrics(scene):
    metrics = run(scene, dataset="mini", split="test")
    ap = pytest.approx(6 / 11)  # all precise up to a recall of 1/2
    angle = {"median": None, "p90": None, "objects": 0}  # squares have no direction
    ship = {"AP50": ap, "AP75": ap, "mAP": ap, "angle_error": angle, "objects": 2, "detections": 2}
    none = {"AP50": None, "AP75": None, "mAP": None, "angle_error": angle, "objects": 0, "detections": 0}
    assert metrics == {
        "dataset": "mini",
        "split": "test",
        "labels": metrics["labels"],
        "images": 3,
        "objects": 2,
        "iou_thresholds": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
        "AP50": ap,
        "AP75": ap,
        "mAP": ap,
        "angle_error": angle,
        "absent_classes": "null",
        "angle_error_rule": {"iou": 0.5, "aspect": 1.5},
        "classes": {**dict.fromkeys(DOTA_V1_CLASSES, none), "ship": ship, "plane": {**none, "detections": 1}},
    }
    assert list(metrics["classes"]) == list(DOTA_V1_CLASSES)
    assert json.loads((scene / "evaluate" / "metrics.json").read_text()) == metrics


def test_angle_errors(scene):
    """A ship is found straight, one turned by atan(2/10), as is a harbor; another harbor is difficult."""
    straight, turned = "0 0 10 0 10 4 0 4", "0 0 10 2 9.2 6 -0.8 4"
    (scene / "labelTxt" / "P1.txt").write_text(f"{straight} ship 0\n{FAR} ship 0\n{straight} harbor 0\n")
    (scene / "labelTxt" / "P2.txt").write_text(f"{straight} ship 0\n{straight} harbor 1\n")
    (scene / "task1" / "Task1_ship.txt").write_text(f"P2 0.9 {turned}\nP1 0.8 {straight}\nP1 0.7 {FAR}\n")
    (scene / "task1" / "Task1_harbor.txt").write_text(f"P2 0.9 {straight}\nP1 0.8 {turned}\n")
    metrics = run(scene)
    turn = np.degrees(np.arctan(0.2))
    assert metrics["classes"]["ship"]["angle_error"] == {
        "median": pytest.approx(turn / 2),
        "p90": pytest.approx(0.9 * turn),
        "objects": 2,
    }
    assert metrics["classes"]["harbor"]["angle_error"]["objects"] == 1
    assert metrics["angle_error"] == {"median": pytest.approx(turn), "p90": pytest.approx(turn), "objects": 3}
    table = {line.split()[0]: line.split()[4:6] for line in metrics_table(metrics).splitlines()}
    assert (table["ship"], table["plane"], table["mean"]) == (["5.7", "10.2"], ["-", "-"], ["11.3", "11.3"])


def test_metrics_tell_which_labels_they_were_measured_on(scene):
    before = run(scene)["labels"]
    assert run(scene)["labels"] == before and len(before) == 12
    label = next((scene / "labelTxt").glob("*.txt"))
    label.write_text(label.read_text() + "\n")
    edited = run(scene)["labels"]
    assert edited != before
    label.rename(label.with_name("renamed.txt"))
    assert run(scene)["labels"] not in (before, edited)


def test_the_files(scene):
    run(scene)
    assert sorted(path.name for path in (scene / "evaluate").iterdir()) == [
        "confusion.csv",
        "dota.txt",
        "metrics.json",
        "metrics.json.provenance.json",
        "outcomes.parquet",
        "pr_curves.csv",
    ]


def test_images_with_what_came_of_their_boxes(scene):
    """Of the existing images; inputs and outputs are in the record, and old files are removed."""
    folder, out = scene / "images", scene / "evaluate"
    folder.mkdir()
    for name in ("P1", "P3"):
        write_png(folder / f"{name}.png", np.zeros((100, 120, 3), np.uint8))
    run(scene, images=folder)
    gallery = read_record(Gallery, out / "gallery.json")
    first, second = gallery.images
    assert (first.name, second.name, first.width, first.height) == ("P1", "P3", 120, 100)
    assert [(each.kind, each.verdict) for each in first.detections] == [("ship", "right"), ("ship", "aside")]
    assert [(each.kind, each.verdict) for each in second.detections] == [("plane", "wrong")]
    assert (len(first.objects), first.missed, second.objects) == (2, (), ())
    record = read_provenance(out / "metrics.json.provenance.json")
    assert record.inputs["../images/P1.png"] == first.source == file_hash(folder / "P1.png")
    assert "gallery.json" in record.outputs and "../images/P2.png" not in record.inputs
    run(scene)
    assert not (out / "gallery.json").exists()
    assert "gallery.json" not in read_provenance(out / "metrics.json.provenance.json").outputs


def test_an_image_that_cannot_be_read_leaves_the_earlier_results_as_they_were(scene):
    run(scene)
    before = {path.name: path.read_bytes() for path in (scene / "evaluate").iterdir()}
    folder = scene / "images"
    folder.mkdir(exist_ok=True)
    for name in ("P1", "P3"):
        (folder / f"{name}.png").write_bytes(b"no picture")
    (scene / "labelTxt/P2.txt").write_text("")  # other scores
    with pytest.raises(DataError, match=r"P1\.png: is not a complete image"):
        run(scene, images=folder)
    assert {path.name: path.read_bytes() for path in (scene / "evaluate").iterdir()} == before


def test_nothing_found(scene):
    for path in (scene / "task1").iterdir():
        path.write_text("")
    metrics = run(scene)
    assert (metrics["AP50"], metrics["mAP"], metrics["objects"]) == (0, 0, 2)
    assert metrics["angle_error"] == {"median": None, "p90": None, "objects": 0}
    assert (scene / "evaluate" / "pr_curves.csv").read_text() == "class,threshold,recall,precision,score\n"


def test_nothing_to_find(scene):
    for path in (scene / "labelTxt").iterdir():
        path.write_text("")
    metrics = run(scene)
    assert (metrics["AP50"], metrics["AP75"], metrics["mAP"], metrics["objects"]) == (None, None, None, 0)
    assert "mAP: nan\n" in (scene / "evaluate" / "dota.txt").read_text()


def test_absent_classes(scene):
    metrics = run(scene, absent_classes="zero")
    assert metrics["classes"]["plane"]["AP50"] == metrics["classes"]["harbor"]["mAP"] == 0
    assert metrics["AP50"] == pytest.approx(6 / 11 / 15)
    with pytest.raises(SettingsError, match="'skip' is unknown"):
        run(scene, absent_classes="skip")


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("task1", "is a folder; name a file with"),
        ("task1/Task1_ship.txt", "is the input of this command"),
        ("pipe", "is a device or a pipe, which would be replaced"),
        ("evaluate/dota.txt", "is the name of another result"),
        ("evaluate/pr_curves.csv", "is the name of another result"),
        ("evaluate/gallery.json", "is the name of another result"),
        ("labelTxt/metrics.json", r"is in the folder of labels, where dota\.txt would be mistaken for one"),
    ],
)
def test_a_place_that_will_not_do(scene, out, problem):
    os.mkfifo(scene / "pipe")
    before = sorted(scene.rglob("*"))
    with pytest.raises(OutputError, match=problem):
        evaluate(scene / "task1", scene / "labelTxt", scene / out)
    assert sorted(scene.rglob("*")) == before


def test_a_zip(scene):
    found = {name: no_detections() for name in DOTA_V1_CLASSES}
    corners = np.array([SHIP.split()], dtype=float)
    found["ship"] = ClassDetections.of(["P1"], np.array([0.9]), corners)
    write_task1(scene, found.items())
    metrics = evaluate(scene / "Task1.zip", scene / "labelTxt", scene / "m.json")
    assert metrics["AP50"] == pytest.approx(6 / 11)
    with pytest.raises(OutputError, match="is the input of this command"):
        evaluate(scene / "Task1.zip", scene / "labelTxt", scene / "Task1.zip")


def test_links_to_nothing_are_not_passed_over(scene):
    (scene / "task1/Task1_bridge.txt").unlink()
    (scene / "task1/Task1_bridge.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"Task1_bridge\.txt: cannot be read"):
        run(scene)
    (scene / "task1/Task1_bridge.txt").unlink()
    (scene / "labelTxt/P9.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"P9\.txt: cannot be read"):
        run(scene)


def test_the_servers_block():
    rows = {name: {"AP50": ap} for name, ap in zip(DOTA_V1_CLASSES, PUBLISHED, strict=True)}
    metrics = {"AP50": sum(PUBLISHED) / 15, "AP75": 0.538087, "mAP": 0.492985, "classes": rows}
    assert server_block(metrics) == PUBLISHED_BLOCK


def test_curves(scene):
    rng = np.random.default_rng(0)
    squares = [f"{20 * i} 0 {20 * i + 10} 0 {20 * i + 10} 10 {20 * i} 10" for i in range(600)]
    (scene / "labelTxt" / "P1.txt").write_text("".join(f"{square} plane 0\n" for square in squares))
    lines = [f"P1 {0.99 - i / 1000:.6f} {square}" for i, square in enumerate(squares) if rng.random() < 0.7]
    lines += [f"P3 {0.99 - i / 1000:.6f} {FAR}" for i in range(900)]
    (scene / "task1" / "Task1_plane.txt").write_text("".join(f"{line}\n" for line in lines))
    metrics = run(scene)
    with (scene / "evaluate" / "pr_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    planes = [row for row in rows if row["class"] == "plane" and row["threshold"] == "0.50"]
    assert {(row["class"], row["threshold"]) for row in rows} == {
        (name, threshold) for name in ("plane", "ship") for threshold in ("0.50", "0.75")
    }
    assert 150 < len(planes) <= 200
    recall, precision, score = (
        np.array([row[key] for row in planes], dtype=float) for key in ("recall", "precision", "score")
    )
    assert (np.diff(recall) >= 0).all() and (np.diff(score) <= 0).all()
    ap = sum(max(precision[recall >= point], default=0) / 11 for point in np.arange(0, 1.1, 0.1))
    assert ap == pytest.approx(metrics["classes"]["plane"]["AP50"], abs=0.01)


def test_confusion(scene, caplog):
    """A ship is found, one is taken for a plane, and a plane is detected where there is nothing."""
    caplog.set_level("INFO", "tiltbox")
    (scene / "task1" / "Task1_plane.txt").write_text(f"P2 0.9 {SHIP}\nP3 0.9 {SHIP}\n")
    run(scene)
    with (scene / "evaluate" / "confusion.csv").open() as file:
        rows = {row.pop("object"): row for row in csv.DictReader(file)}
    assert list(rows) == [*DOTA_V1_CLASSES, "nothing"]
    assert list(rows["ship"]) == [*DOTA_V1_CLASSES, "missed"]
    counted = {
        (row, column) for row, cells in rows.items() for column, count in cells.items() if count != "0"
    }
    assert counted == {("ship", "ship"), ("ship", "plane"), ("nothing", "plane")}
    assert caplog.messages == ["most often taken for another class: ship for plane (1)"]


def test_the_table(scene):
    table = metrics_table(run(scene)).splitlines()
    assert table[0].split() == ["class", "AP50", "AP75", "mAP", "angle°", "p90°", "objects", "detections"]
    assert table[1].split() == ["plane", "-", "-", "-", "-", "-", "0", "1"]
    assert table[-1].split() == ["mean", "54.55", "54.55", "54.55", "-", "-", "2", "3"]
    assert len(table) == 17 and len({len(line) for line in table}) == 1


def test_an_image_without_labels(scene):
    (scene / "task1" / "Task1_ship.txt").write_text(f"P1 0.9 {SHIP}\n\nP4 0.8 {FAR}\n")
    with pytest.raises(DataError, match=r"Task1_ship\.txt:3: there are no labels for image 'P4'"):
        run(scene)
    assert not any((scene / "evaluate").iterdir())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("task1/Task1_ship.txt", "P1 0.9 1 2\n", r"Task1_ship\.txt:1: has 4 words"),
        ("labelTxt/P1.txt", f"\n{SHIP}\n", r"P1\.txt:2: has 8 words"),
        ("labelTxt/P1.txt", f"{SHIP} shipp 0\n", r"P1\.txt:1: unknown class 'shipp'"),
    ],
)
def test_malformed_files(scene, file, content, message):
    (scene / file).write_text(content)
    with pytest.raises(DataError, match=message):
        run(scene)


def test_missing_folders(scene):
    with pytest.raises(DataError, match="folder not found"):
        evaluate(scene / "task1", scene / "labels", scene / "m.json")
    with pytest.raises(DataError, match="folder or zip not found"):
        evaluate(scene / "none", scene / "labelTxt", scene / "m.json")
    with pytest.raises(DataError, match="contains no label files"):
        evaluate(scene / "task1", scene / "task1" / "..", scene / "m.json")


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the DOTA sample images are not here")
def test_the_labels_of_dota_found_as_they_are(tmp_path):
    """Labels as detections: every ordinary object is found, and difficult ones do not count."""
    folder = SAMPLE / "train" / "labelTxt"
    labels = {path.stem: read_labels(path) for path in folder.glob("*.txt")}
    found = {}
    for name in DOTA_V1_CLASSES:
        rows = [
            (image, qbox)
            for image, each in labels.items()
            for qbox, other in zip(each.qboxes, each.classes, strict=True)
            if other == name
        ]
        qboxes = np.array([qbox for _, qbox in rows]).reshape(-1, 8)
        found[name] = ClassDetections.of([image for image, _ in rows], np.full(len(rows), 0.5), qboxes)
    write_task1(tmp_path, found.items())
    metrics = evaluate(tmp_path, folder, tmp_path / "metrics.json")
    assert metrics["mAP"] == pytest.approx(1)
    assert metrics["objects"] == sum(int((each.difficult == 0).sum()) for each in labels.values())


def test_the_outcomes_give_the_same_scores(scene):
    """Without labels: the first row of a resampling is that of all images, once each."""
    metrics = run(scene)
    images, outcomes = read_outcomes(scene / "evaluate/outcomes.parquet")
    assert images == ("P1", "P2", "P3") and list(outcomes) == list(metrics["classes"])
    for name, each in outcomes.items():
        (aps,) = resampled_aps(each, np.ones((1, len(images)), np.int32)).tolist()
        assert metrics["classes"][name]["AP50"] in (aps[0], None)
        assert len(each.findable) == metrics["classes"][name]["objects"]
