"""Checkpoints as MLflow models: loaded as users load them, with the same results as the stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tiltbox import tracking
from tiltbox.dota.task1 import read_task1
from tiltbox.errors import DataError
from tiltbox.model import build_detector
from tiltbox.model.checkpoint import save_checkpoint
from tiltbox.model.variants import find_variant
from tiltbox.records import write_record
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages.merge import merge
from tiltbox.stages.predict import predict
from tiltbox.stages.split import split
from tiltbox.tracking.journal import Journal
from tiltbox.tracking.serving import COLUMNS, Detector

NAME, CLASSES = "yoloms-xs-previous", ("plane", "ship")
VARIANT = find_variant(NAME)
CUTTING = {"patch_size": 64, "overlap": 16, "rates": [1.0, 0.5], "iof": 0.7}
FACTS = {
    "variant": NAME,
    "config_hash": "hash1",
    "git_commit": "abc1234",
    "pretrained": None,
    "image_size": 64,
    "seed": 0,
    "device": "CPU",
    "data": CUTTING | {"classes": 2, "contents": "0" * 32},
    "versions": {},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A detector that finds something anywhere: random weights, with scores pushed up."""
    torch.manual_seed(0)
    model = build_detector(NAME, num_classes=2)
    for layer in model.bbox_head.rtm_cls:
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.constant_(layer.bias, -2.6)
    for layer in model.bbox_head.rtm_reg:
        layer.bias.data = torch.tensor([0.0, 0.5, 0.0, 0.5])
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    save_checkpoint(path, model.state_dict(), {"variant": NAME, "classes": list(CLASSES), "image_size": 64})
    return path


@pytest.fixture(scope="module")
def project(database, checkpoint, tmp_path_factory) -> Path:
    """A project in which a detector was trained, scored and logged twice, and that was then moved."""
    before, after = (tmp_path_factory.mktemp(name) / "project" for name in ("before", "after"))
    train = before / "results/mini" / NAME / "train"
    train.mkdir(parents=True)
    (before / "mlflow.db").write_bytes(database.read_bytes())
    (train / "checkpoint.pth").write_bytes(checkpoint.read_bytes())
    now = datetime.now(UTC)
    journal = Journal(
        training="hash1-now",
        track=f"mini/{NAME}",
        variant=VARIANT,
        schedule=find_schedule("smoke"),
        facts=FACTS,
        started=now,
        ended=now,
        state="FINISHED",
    )
    write_record(train / ".mlflow.json", journal)
    scores = {"AP50": 0.5, "AP75": 0.25, "mAP": 0.25, "objects": 3}
    metrics = {"dataset": "mini", "split": "val", "labels": "34824d0d17e9", "images": 1, "classes": {}}
    (train.parent / "evaluate").mkdir()
    (train.parent / "evaluate/metrics.json").write_text(json.dumps(metrics | scores))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(before)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for _ in range(2):
            tracking.catch_up_all(Path("results"))
    before.rename(after)
    return after


@pytest.fixture
def image() -> np.ndarray:
    """RGB, wider than high and of several windows."""
    return np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)


@pytest.fixture
def mlflow(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tracking.client()


def test_one_model_of_one_run_with_its_scores(mlflow):
    (run,) = mlflow.search_runs(["1", "2"])
    (model,) = mlflow.search_logged_models([run.info.experiment_id])
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert (model.name, str(model.status)) == (NAME, "READY")
    found = {each.key: (each.value, each.dataset_name, each.dataset_digest) for each in model.metrics}
    assert found["AP50"] == (0.5, "mini val", "34824d0d17e9")
    (version,) = mlflow.search_model_versions(f"name = 'mini-{NAME}'")
    assert (version.run_id, version.source) == (run.info.run_id, f"models:/{model.model_id}")
    assert mlflow.get_model_version_by_alias(f"mini-{NAME}", "seed-0").version == version.version


LOAD = """
import json, sys, mlflow, numpy
image = numpy.load("image.npy")
found = mlflow.pyfunc.load_model(sys.argv[1]).predict(image)
json.dump(found.to_dict(orient="list"), open("found.json", "w"))
"""


def test_it_is_loaded_by_alias_and_finds_what_the_stages_find(project, checkpoint, image, tmp_path):
    """With MLflow alone, in the project's folder without a server: tiltbox is its plugin (`make setup`)."""
    np.save(project / "image.npy", image)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    command = [sys.executable, "-c", LOAD, f"models:/mini-{NAME}@seed-0"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((project / "found.json").read_text())
    assert list(found) == list(COLUMNS) and found["score"] == sorted(found["score"], reverse=True)
    assert sorted(rows(found)) == sorted(by_stages(checkpoint, image, tmp_path))


def rows(found: dict) -> list[tuple]:
    corners = zip(*(found[key] for key in COLUMNS[2:]), strict=True)
    scored = zip(found["class"], found["score"], corners, strict=True)
    return [(name, round(score, 4), *(round(value, 1) for value in qbox)) for name, score, qbox in scored]


def by_stages(checkpoint: Path, image: np.ndarray, folder: Path) -> list[tuple]:
    """The image cut into patches, which are predicted, and merged."""
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images/a.png"), image[:, :, ::-1])
    split([folder], folder / "patches", size=64, overlap=16, rates=(1.0, 0.5), iof=0.7, workers=1)
    predict(NAME, VARIANT, checkpoint, folder / "patches", folder / "out.parquet", classes=CLASSES, gpus=0)
    merge(folder / "out.parquet", folder / "merge", classes=CLASSES)
    found = []
    for name, part in read_task1(folder / "merge", CLASSES).items():
        for score, qbox in zip(part.scores, part.qboxes, strict=True):
            found.append((name, round(float(score), 4), *(round(float(value), 1) for value in qbox)))
    assert len(found) > 5
    return found


def test_files_that_are_not_images(mlflow):
    (model,) = mlflow.search_logged_models(["1", "2"])
    detector = Detector(Path("mlartifacts/mini/models") / model.model_id / "artifacts/data")
    for wrong in (
        np.zeros((4, 4, 3)),
        *(np.zeros(shape, np.uint8) for shape in ((4, 4), (4, 4, 4), (0, 4, 3))),
    ):
        with pytest.raises(DataError, match="give uint8 of height × width × 3, RGB"):
            detector.predict(wrong)
