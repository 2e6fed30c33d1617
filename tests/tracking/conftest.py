"""Trainings as MLflow sees them: files that grow in a folder, without training a network."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tiltbox import tracking
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import find_schedule
from tiltbox.tracking import following

NAME = "yoloms-xs-current"
FACTS = {
    "variant": NAME,
    "size": "xs",
    "series": "YOLO-MS current",
    "config_hash": "hash1",
    "git_commit": "abc1234",
    "pretrained": None,
    "augmentation": [],
    "epochs": 3,
    "images_per_step": 1,
    "processes": 1,
    "learning_rate": 0.001,
    "image_size": 64,
    "seed": 0,
    "device": "CPU",
    "data": {
        "patch_size": 64,
        "overlap": 16,
        "rates": [1.0],
        "iof": 0.7,
        "contents": "0" * 32,
        "classes": 15,
    },
    "versions": {"tiltbox": "0.1.0"},
}
VARIANT, SCHEDULE = find_variant(NAME), find_schedule("smoke")
COUNTS = {"variant": NAME, "input": [1, 3, 1024, 1024], "params": 5_000_000, "flops": 22_000_000_000}


@dataclass
class Run:
    """A results folder, ``<dataset>/<variant>``, in which a training can be simulated."""

    folder: Path
    track: str = f"mini/{NAME}"
    facts, variant, schedule = FACTS, VARIANT, SCHEDULE

    @property
    def train(self) -> Path:
        return self.folder / "train"

    @contextmanager
    def training(self, *, resumes: bool = False, mark: str = "hash1") -> Iterator[Callable[[int], None]]:
        """Simulate a training; the yielded function writes an epoch. It succeeds unless the block raises."""
        self.train.mkdir(parents=True, exist_ok=True)
        work = self.train / "work"
        facts = self.facts | {"config_hash": mark}
        with (
            FileLock(self.train / ".training.lock"),
            tracking.followed(
                self.train, work, self.track, self.variant, self.schedule, facts, resumes=resumes
            ),
        ):
            work.mkdir(exist_ok=True)
            yield lambda epoch: self.write(work / "history.csv", epoch)
            self.finish(work, facts)

    def write(self, history: Path, epoch: int) -> None:
        new = not history.exists()
        with history.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["epoch", "step", "lr", "loss"])
            writer.writerow([epoch, 2 * epoch, 1e-3, 4.0 - epoch])

    def finish(self, work: Path, facts: dict) -> None:
        """Publish as a training does; complexity was counted before, so that torch is not needed."""
        (work / "history.csv").rename(self.train / "history.csv")
        work.rmdir()
        (self.train / "train.json").write_text(json.dumps(facts | {"steps": 6, "seconds": 3.0}))
        (self.train / "config.py").write_text("seed = 0\n")
        counted = self.folder / "complexity"
        counted.mkdir(exist_ok=True)
        (counted / "complexity.json").write_text(json.dumps(COUNTS))


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> Path:
    """A folder with a database, since creating one takes seconds."""
    folder = tmp_path_factory.mktemp("created")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.prepare("empty")
    return folder / "mlflow.db"


@pytest.fixture
def here(database, tmp_path, monkeypatch) -> Path:
    """A project's folder, the working directory, with an empty database."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("LOOK_EVERY", 0.1), ("TRY_AGAIN", 0.2)):
        monkeypatch.setattr(following, name, seconds)
    return Run(tmp_path / "results/mini" / NAME)
