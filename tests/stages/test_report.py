"""The report stage on folders like those of the other stages."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.stages.report import report

NAMES = ("yoloms-xs-current", "yoloms-xs-previous")
FILES = ("leaderboard.csv", "leaderboard.html", "leaderboard.md")
TRAINING = {
    "variant": "",
    "size": "xs",
    "pretrained": None,
    "augmentation": ["flip"],
    "epochs": 1,
    "steps": 3,
    "images_per_step": 2,
    "processes": 1,
    "learning_rate": 0.004,
    "image_size": 128,
    "seed": 0,
    "device": "CPU",
    "seconds": 4.2,
    "config_hash": "0123456789ab",
    "git_commit": "abc1234",
    "versions": {"tiltbox": "0.1.0"},
}
CLASS = {"AP50": 0.25, "AP75": 0.1, "mAP": 0.15, "objects": 3, "detections": 9}
METRICS = {"dataset": "mini", "split": "val", "images": 1, "objects": 3, "iou_thresholds": [0.5]}
METRICS |= {"AP50": 0.25, "AP75": 0.1, "mAP": 0.15, "classes": {"ship": CLASS}}
COUNTS = {"variant": "", "input": [1, 3, 1024, 1024], "params": 4478944, "flops": 22241000000}


def write(results: Path, name: str) -> None:
    folder = results / name
    for stage in ("train", "evaluate", "complexity"):
        (folder / stage).mkdir(parents=True)
    facts = {**TRAINING, "variant": name, "series": f"YOLO-MS {name.split('-')[2]}"}
    (folder / "train/train.json").write_text(json.dumps(facts))
    (folder / "train/history.csv").write_text("epoch,step,lr,loss\n1,3,0.004,1.5\n")
    (folder / "train/config.py").touch()
    (folder / "train/checkpoint.pth").touch()
    (folder / "evaluate/metrics.json").write_text(json.dumps(METRICS))
    (folder / "complexity/complexity.json").write_text(json.dumps(COUNTS))


@pytest.fixture
def results(tmp_path) -> Path:
    for name in NAMES:
        write(tmp_path / "mini", name)
    return tmp_path / "mini"


def test_all_three_files_and_the_rows(results):
    lines = report(results, results).splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [
        ["yoloms-xs-previous", "15.00"],
        ["yoloms-xs-current", "15.00"],
    ]
    files = sorted(path.name for path in results.iterdir() if path.is_file())
    assert files == [*FILES, "leaderboard.provenance.json"]
    for name in FILES:
        text = (results / name).read_text()
        assert "yoloms-xs-current" in text and "yoloms-xs-current/train/checkpoint.pth" in text


def test_files_link_from_wherever_they_are_written(results, tmp_path):
    report(results, tmp_path / "elsewhere" / "deep")
    with (tmp_path / "elsewhere/deep/leaderboard.csv").open() as file:
        for row in csv.DictReader(file):
            assert (tmp_path / "elsewhere/deep" / row["checkpoint"]).resolve().exists()


def test_each_detector_has_a_page(results):
    report(results, results)
    for name, other in (NAMES, NAMES[::-1]):
        text = (results / f"detectors/{name}.html").read_text()
        assert f"<h1>{name} on mini</h1>" in text and other not in text
        assert f'href="../{name}/train/checkpoint.pth"' in text


def test_a_gallery_is_read_and_a_malformed_one_is_named(results):
    box = {"kind": "ship", "corners": [0, 0, 9, 0, 9, 9, 0, 9]}
    image = {"name": "P7", "source": "0", "left": 0, "top": 0, "width": 9, "height": 9}
    image |= {"picture": "data:image/webp;base64,AAAA", "objects": [box | {"difficult": False}]}
    place = results / NAMES[0] / "evaluate/gallery.json"
    place.write_text(json.dumps({"iou": 0.5, "score": 0.3, "images": [image | {"detections": []}]}))
    report(results, results)
    text = (results / "leaderboard.html").read_text()
    assert "0 hits, 1 miss, 0 false alarms" in text and "data:image/webp;base64,AAAA" in text
    record = json.loads((results / "leaderboard.provenance.json").read_text())
    assert f"{NAMES[0]}/evaluate/gallery.json" in record["inputs"]
    place.write_text(json.dumps({"iou": 0.5, "score": 0.3, "images": [image]}))
    with pytest.raises(DataError, match=r"gallery.json: images.0.detections: is missing"):
        report(results, results)


def test_the_same_results_give_the_same_bytes(results, tmp_path):
    for out in ("a", "b"):
        report(results, tmp_path / out)
    for name in (*FILES, f"detectors/{NAMES[0]}.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    "missing",
    [
        "train/train.json",
        "train/history.csv",
        "train/config.py",
        "train/checkpoint.pth",
        "evaluate/metrics.json",
        "complexity/complexity.json",
        "train",
        "evaluate",
        "complexity",
    ],
)
def test_no_file_need_be_there(results, missing):
    for name in NAMES:
        path = results / name / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert all(name in report(results, results) for name in NAMES)
    assert "–" in (results / "leaderboard.md").read_text()


def test_detectors_that_are_gone_leave_no_figures(results):
    """Files of others stay; a damaged record of the last report does not stop the new one."""
    report(results, results)
    assert {path.stem for path in (results / "metrics").iterdir()} == set(NAMES)
    assert {path.stem for path in (results / "detectors").iterdir()} == set(NAMES)
    (results / "metrics/mine.json").write_text("{}")
    shutil.rmtree(results / NAMES[1])
    report(results, results)
    assert {path.stem for path in (results / "metrics").iterdir()} == {NAMES[0], "mine"}
    assert {path.stem for path in (results / "detectors").iterdir()} == {NAMES[0]}
    (results / "leaderboard.provenance.json").write_text("{")
    report(results, results)
    assert {path.stem for path in (results / "plots").iterdir()} == {
        "training",
        "precision_recall",
        "ap_by_class",
        "validation",
    }


def test_without_a_folder_it_only_prints(results):
    before = sorted(results.rglob("*"))
    assert NAMES[0] in report(results, None)
    assert sorted(results.rglob("*")) == before


def test_without_results_it_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="all_variants"):
        report(tmp_path / "nowhere", tmp_path)


def test_a_malformed_file_leaves_the_old_leaderboard(results):
    report(results, results)
    before = [(results / name).read_bytes() for name in FILES]
    (results / NAMES[0] / "train/train.json").write_text('{"size": "xs"}')
    with pytest.raises(DataError, match=r"yoloms-xs-current/train/train.json: pretrained: is missing"):
        report(results, results)
    assert [(results / name).read_bytes() for name in FILES] == before


def test_a_folder_that_cannot_be_written(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write here"):
        report(results, tmp_path / "file")


def test_malformed_published_numbers(results, tmp_path):
    (tmp_path / "published.yaml").write_text("conditions: {}\n")
    with pytest.raises(SettingsError, match=r"published.yaml: conditions.title: is missing"):
        report(results, results, published=tmp_path / "published.yaml")


def test_a_terminal_without_dashes(results):
    """The table is shown with the characters of the terminal's encoding."""
    code = "import sys; from tiltbox.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "report", results, "--out", results]
    ascii_alone = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=ascii_alone, capture_output=True, text=True, check=True)
    assert "yoloms-xs-current" in done.stdout and "?" in done.stdout
