"""A chain of results as the stages leave it, and what is found after tampering."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiltbox.__main__ import main
from tiltbox.errors import DataError
from tiltbox.mini import render_mini
from tiltbox.model.variants import find_variant
from tiltbox.provenance import file_hash, read_provenance
from tiltbox.report.collect import collect
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages.complexity import complexity
from tiltbox.stages.evaluate import evaluate
from tiltbox.stages.merge import merge
from tiltbox.stages.predict import predict
from tiltbox.stages.report import report
from tiltbox.stages.split import split
from tiltbox.stages.train import train
from tiltbox.stages.verify import verify

NAME = "yoloms-xs-previous"
RESULTS = f"results/mini/{NAME}"
VARIANT, SMOKE = find_variant(NAME), find_schedule("smoke").model_copy(update={"threads": 1})
SCORES = f"{RESULTS}/evaluate/metrics.json.provenance.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with one variant, from images to the leaderboard."""
    folder = tmp_path_factory.mktemp("made")
    raw, patches, results = folder / "data/raw", folder / "data/patches", folder / RESULTS
    render_mini(raw, seed=0, images={"train": 2, "val": 2}, size=128)
    for name in ("train", "val"):
        split([raw / name], patches / name, size=128, overlap=24, workers=1)
    train(NAME, VARIANT, SMOKE, patches / "train", results / "train", gpus=0)
    found, merged = results / "predict/detections.parquet", results / "merge"
    predict(NAME, VARIANT, results / "train/checkpoint.pth", patches / "val", found, gpus=0)
    merge(found, merged)
    labels, images = raw / "val/labelTxt", raw / "val/images"
    scores = results / "evaluate/metrics.json"
    evaluate(merged, labels, scores, dataset="mini", split="val", images=images)
    complexity(NAME, VARIANT, results / "complexity/complexity.json", size=128)
    report(results.parent, results.parent)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A copy elsewhere, as the current folder."""
    folder = shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def test_a_project_fits_wherever_it_is(project, tmp_path):
    found = verify(Path("results/mini"))
    assert found.problems == () and found.records == 8
    shutil.move(project, tmp_path / "moved")
    assert verify(tmp_path / "moved/results/mini").problems == ()


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def edit_patch(path: Path) -> None:
    image = cv2.imread(str(path))
    image[0, 0] ^= 1
    cv2.imwrite(str(path), image)


def edit_record(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 5}))


def swap_checkpoint(path: Path) -> None:
    """It is from another training, with its record, so everything in the folder is consistent."""
    append(path)
    place = path.with_name("provenance.json")
    record = read_provenance(place)
    outputs = {**record.outputs, "checkpoint.pth": file_hash(path)}
    place.write_text(record.model_copy(update={"outputs": outputs}).sealed().model_dump_json())


TAMPERING: list[tuple[str, Callable[[Path], object], str]] = [
    (f"{RESULTS}/merge/Task1_ship.txt", append, "has changed since 'tiltbox merge' wrote it"),
    (f"{RESULTS}/merge/Task1.zip", append, "has changed since 'tiltbox merge' wrote it"),
    (f"{RESULTS}/merge/Task1_ship.txt", Path.unlink, "is gone since 'tiltbox merge' wrote it"),
    (f"{RESULTS}/merge/Task1_kite.txt", Path.touch, "is new since 'tiltbox evaluate' read the folder"),
    (f"{RESULTS}/train/checkpoint.pth", append, "has changed since 'tiltbox train' wrote it"),
    (f"{RESULTS}/train/checkpoint.pth", swap_checkpoint, "has changed since 'tiltbox predict' read it for"),
    (f"{RESULTS}/train/train.json", append, "has changed since 'tiltbox train' wrote it"),
    (f"{RESULTS}/predict/detections.parquet", append, "has changed since 'tiltbox predict' wrote it"),
    (f"{RESULTS}/evaluate/metrics.json", append, "has changed since 'tiltbox evaluate' wrote it"),
    (f"{RESULTS}/evaluate/outcomes.parquet", append, "has changed since 'tiltbox evaluate' wrote it"),
    (
        SCORES,
        edit_record,
        "has been edited since the stage wrote it",
    ),
    (
        SCORES,
        Path.unlink,
        "is gone since 'tiltbox report' read it",
    ),
    (f"{RESULTS}/complexity/complexity.json", append, "has changed since 'tiltbox complexity' wrote it"),
    ("results/mini/leaderboard.csv", append, "has changed since 'tiltbox report' wrote it"),
    ("results/mini/leaderboard.html", Path.unlink, "is gone since 'tiltbox report' wrote it"),
    ("data/raw/val/labelTxt/P0002.txt", append, "has changed since 'tiltbox split' read it"),
    ("data/raw/val/labelTxt/P9999.txt", Path.touch, "is new since 'tiltbox split' read the folder"),
    ("data/raw/train/images/P0000.png", append, "has changed since 'tiltbox split' read it"),
    ("data/patches/train/manifest.json", append, "has changed since 'tiltbox split' wrote it"),
]


@pytest.mark.parametrize(("file", "tamper", "said"), TAMPERING)
def test_tampering(project, file, tamper, said):
    tamper(project / file)
    problems = verify(Path("results/mini")).problems
    assert any(line.startswith(f"{file}: {said}") for line in problems), problems


def test_a_stage_that_was_removed_from_the_results(project):
    shutil.rmtree(project / RESULTS / "evaluate")
    problems = verify(Path("results/mini")).problems
    assert any(line.startswith(f"{SCORES}: is gone since 'tiltbox report' read it") for line in problems)


def test_missing_data_are_named_but_not_a_problem(project, capsys):
    """For example if results came from another machine."""
    shutil.rmtree(project / "data")
    found = verify(Path("results/mini"))
    assert found.problems == ()
    folders = ("patches/train", "patches/val", "raw/val/images", "raw/val/labelTxt")
    assert found.absent == tuple(f"data/{folder}" for folder in folders)
    assert main(["verify", "results/mini"]) == 0
    assert f"not here, so not checked: {', '.join(found.absent)}" in capsys.readouterr().out


def test_a_patch_with_another_pixel_or_label(project):
    patch = next(Path("data/patches/train/images").iterdir())
    before = patch.read_bytes()
    edit_patch(patch)
    said = "data/patches/train: contains patches whose pixels or labels differ from those that were cut"
    assert verify(Path("results/mini")).problems == (said,)
    patch.write_bytes(before)
    append(Path("data/patches/train/annfiles") / f"{patch.stem}.txt")
    assert verify(Path("results/mini")).problems == (said,)


def test_a_result_without_a_record(project):
    shutil.copytree(RESULTS, "results/mini/copied")
    for path in Path("results/mini/copied").rglob("*provenance.json"):
        path.unlink()
    problems = verify(Path("results/mini")).problems
    assert "results/mini/copied/merge/Task1.zip: has no record of the stage that wrote it" in problems


def test_a_part_of_the_results(project):
    append(Path(RESULTS) / "train/checkpoint.pth")
    assert len(verify(Path(RESULTS) / "evaluate").problems) == 1, "the chain leads back to it"
    assert verify(Path(RESULTS) / "complexity").problems == ()


def test_the_command(project, capsys):
    assert main(["verify", "results/mini"]) == 0
    assert (
        capsys.readouterr()
        .out.strip()
        .endswith("of 8 records: all unchanged since they were written and read")
    )
    append(Path(RESULTS) / "merge/Task1_ship.txt")
    assert main(["verify", "results/mini"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{RESULTS}/merge/Task1_ship.txt: has changed since 'tiltbox merge' wrote it")
    assert err.count("\n") == 1 and "1 problem in " in err


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "folder not found"), ("", "contains no"), ("{}", "is not a valid stage record")],
)
def test_folders_that_are_not_results(tmp_path, content, message):
    folder = tmp_path / "results"
    if content is not None:
        folder.mkdir()
    if content:
        (folder / "provenance.json").write_text(content)
    with pytest.raises(DataError, match=message):
        verify(folder)


def test_what_a_record_says(project):
    record = read_provenance(Path(RESULTS) / "train/provenance.json")
    assert (record.stage, record.seed, record.gpu) == ("train", 0, None)
    assert record.settings["schedule"]["max_steps"] == 2 and record.settings["name"] == NAME
    assert record.inputs.keys() == {"../../../../data/patches/train/manifest.json"}
    assert record.outputs.keys() == {"checkpoint.pth", "config.py", "history.csv", "train.json"}
    assert record.versions.keys() >= {"tiltbox", "torch", "onedl-mmrotate", "numpy"}
    assert record.processor and record.cores == os.cpu_count() and record.seconds > 0
    image = np.array([*read_provenance(Path("data/patches/train.provenance.json")).inputs])
    assert sum("images/" in path for path in image) == 2


def test_test_images_among_the_training_images_are_found_by_their_content(project):
    (row,) = collect(Path("results/mini"), {})
    assert row.seen_before == 0
    shutil.copy("data/raw/train/images/P0000.png", "data/raw/val/images/P0002.png")
    split([Path("data/raw/val")], Path("data/patches/val"), size=128, overlap=24, workers=1)
    (row,) = collect(Path("results/mini"), {})
    assert row.seen_before is None, "it was tested on other patches than there are now"
    found = Path(RESULTS) / "predict/detections.parquet"
    weights = Path(RESULTS) / "train/checkpoint.pth"
    predict(NAME, VARIANT, weights, Path("data/patches/val"), found, gpus=0)
    (row,) = collect(Path("results/mini"), {})
    assert row.seen_before == 1


@pytest.mark.parametrize("folder", ["results", "data"])
def test_folders_that_are_links(project, tmp_path, folder):
    """A link to a larger disk, as is usual on clusters."""
    shutil.move(folder, tmp_path / "elsewhere")
    Path(folder).symlink_to(tmp_path / "elsewhere")
    assert verify(Path("results/mini")).problems == ()
    (row,) = collect(Path("results/mini"), {})
    assert row.seen_before == 0


def test_a_damaged_patch_is_named_among_the_rest(project):
    append(Path(RESULTS) / "merge/Task1_ship.txt")
    patch = next(Path("data/patches/train/images").iterdir())
    os.truncate(patch, 100)
    problems = verify(Path("results/mini")).problems
    assert len(problems) == 2 and any(str(patch) in line for line in problems)


def test_the_record_of_a_report_below_a_folder_called_work(made, tmp_path):
    results = shutil.copytree(made / "results", tmp_path / "work/results") / "mini"
    report(results, results)
    record = read_provenance(results / "leaderboard.provenance.json")
    assert sum(name.endswith("metrics.json") for name in record.inputs) == 1


def test_records_of_outputs_of_one_name_are_apart(project):
    merge(Path(RESULTS) / "predict/detections.parquet", Path("yolo"))
    evaluate(Path("yolo"), Path("data/raw/val/labelTxt"), Path("yolo.json"))
    assert {path.name for path in Path().glob("yolo*provenance.json")} == {
        "yolo.provenance.json",
        "yolo.json.provenance.json",
    }


def test_what_a_training_read_is_hashed_before_it_begins(project, monkeypatch):
    """The patches may be cut again while it runs: the record is of those it began with."""
    manifest = Path("data/patches/train/manifest.json")
    before, launch = file_hash(manifest), train.__globals__["_launch"]

    def edits(*args, **options):
        launch(*args, **options)
        append(manifest)

    monkeypatch.setitem(train.__globals__, "_launch", edits)
    train(NAME, VARIANT, SMOKE, Path("data/patches/train"), Path("again"), gpus=0)
    (found,) = read_provenance(Path("again/provenance.json")).inputs.values()
    assert found == before != file_hash(manifest)
