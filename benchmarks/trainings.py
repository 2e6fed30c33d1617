"""Complete trainings, from patches to the scores of whole images, each in separate processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from tiltbox.configs import validated
from tiltbox.settings.datasets import Patch, find_dataset
from tiltbox.settings.schedules import Schedule

TILTBOX = (sys.executable, "-m", "tiltbox")
MINI = "mini"  # the rendered set, in place of a folder
SCORES = ("AP50", "AP75", "mAP", "angle error (°)")
MISSING = "–"


class Failed(Exception):
    """A program ended with an error; the message is its last line."""


class Score(NamedTuple):
    """AP as fractions, the median angle error in degrees; None if there is nothing to measure."""

    ap50: float | None
    ap75: float | None
    mean_ap: float | None
    angle: float | None

    @classmethod
    def read(cls, path: Path) -> Score:
        metrics = json.loads(path.read_text())
        return cls(*(metrics[key] for key in SCORES[:3]), metrics["angle_error"]["median"])

    def cells(self) -> list[str]:
        """The cells of the columns SCORES."""
        aps = [MISSING if ap is None else f"{100 * ap:.2f}" for ap in self[:3]]
        return [*aps, MISSING if self.angle is None else f"{self.angle:.1f}"]


@dataclass(frozen=True)
class Ground:
    """The data to learn from and to test on.

    Attributes:
        folder: The folder for all outputs.
        raw: A folder that contains ``train`` and ``val``, each with ``images`` and ``labelTxt``.
        dataset: The name or file of the dataset, as ``--dataset`` takes it.
        classes: Its classes.
        patch: How its images are cut.
    """

    folder: Path
    raw: Path
    dataset: str
    classes: tuple[str, ...]
    patch: Patch

    def patches(self, part: str) -> Path:
        return self.folder / "patches" / part

    def split(self) -> None:
        cut = ["--size", self.patch.size, "--overlap", self.patch.overlap, "--dataset", self.dataset]
        for part in ("train", "val"):
            command = [*TILTBOX, "split", self.raw / part, "--out", self.patches(part), *cut]
            run(command, self.folder / f"split-{part}.log")

    def train_patches(self) -> int:
        """The number of patches with objects, which are used for training."""
        manifest = json.loads((self.patches("train") / "manifest.json").read_text())
        return manifest["patches"] - manifest["empty_patches"]

    def evaluate(self, results: Path, labels: Path, out: Path, *options: object) -> Score:
        places = ["--labels", labels, "--out", out / "metrics.json", "--dataset", self.dataset]
        run([*TILTBOX, "evaluate", results, *places, *options], out / "evaluate.log")
        return Score.read(out / "metrics.json")


def mini_ground(folder: Path) -> Ground:
    run([*TILTBOX, "download", MINI, "--out", folder / "raw"], folder / "download.log")
    dataset = find_dataset(MINI)
    return Ground(folder, folder / "raw", MINI, dataset.classes, dataset.patch)


def folder_ground(data: Path, folder: Path, classes: Sequence[str] | None, patch: Patch) -> Ground:
    """Data with their own dataset file; without ``classes`` they are DOTA's."""
    content = {"name": "learning", "source": {"folder": str(data.resolve())}, "schedule": "small-cpu"}
    file = folder / "dataset.yaml"
    file.write_text(yaml.safe_dump(content | ({"classes": list(classes)} if classes else {})))
    return Ground(folder, data, str(file), find_dataset(str(file)).classes, patch)


@dataclass(frozen=True)
class Trainer:
    """Trains a variant of tiltbox and scores it.

    Attributes:
        gpus: The GPUs of each training and prediction.
    """

    ground: Ground
    variant: str
    gpus: int = 0

    def steps_of_epoch(self, schedule: Schedule) -> int:
        return math.ceil(self.ground.train_patches() / (schedule.batch * schedule.processes))

    def train(self, out: Path, schedule: Schedule, program: Sequence[object] = TILTBOX) -> float:
        """CPU seconds of the whole command, which begins with ``program``, including its child processes."""
        out.mkdir(parents=True)
        (out / "schedule.yaml").write_text(yaml.safe_dump(schedule.model_dump(mode="json")))
        places = ["--patches", self.ground.patches("train"), "--out", out / "train"]
        return self._stage(program, "train", out, *places)

    def score(self, out: Path) -> Score:
        """The scores of the detector that was trained in ``out``, on the whole images of val."""
        found, merged = out / "detections.parquet", out / "merge"
        checkpoint = ["--checkpoint", out / "train/checkpoint.pth"]
        self._stage(
            TILTBOX, "predict", out, *checkpoint, "--patches", self.ground.patches("val"), "--out", found
        )
        command = [*TILTBOX, "merge", found, "--out", merged, "--dataset", self.ground.dataset]
        run(command, out / "merge.log")
        return self.ground.evaluate(merged, self.ground.raw / "val/labelTxt", out)

    def _stage(self, program: Sequence[object], verb: str, out: Path, *places: object) -> float:
        settings = ["--schedule", out / "schedule.yaml", "--dataset", self.ground.dataset]
        command = [*program, verb, self.variant, *places, *settings, "--gpus", self.gpus]
        return run(command, out / f"{verb}.log", self._leases(out))

    def _leases(self, out: Path) -> dict[str, str]:
        """GPUs are leased by temporary files; if each training has its own folder, they share one GPU."""
        if not self.gpus:
            return {}
        folder = out / "tmp"
        folder.mkdir(exist_ok=True)
        return {"TMPDIR": str(folder)}


def changed(schedule: Schedule, changes: Mapping) -> Schedule:
    """The schedule with other values, those of nested keys one by one."""
    content = schedule.model_dump()
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, Mapping) else value
    return validated(Schedule, content, "schedule")


def lasting(schedule: Schedule, epochs: int) -> Schedule:
    """The schedule with this many epochs, whatever the size of the variant."""
    return changed(schedule, {"epochs": epochs, "max_steps": None})


def stopped(schedule: Schedule, steps: int) -> Schedule:
    """The schedule with this many steps and a warm-up that fits into half of them."""
    return changed(schedule, {"max_steps": steps, "warmup_steps": min(schedule.warmup_steps, steps // 2)})


def run(command: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> float:
    """Run a program with one thread; its CPU seconds, including those of its children.

    Raises:
        Failed: It cannot be started, or ended with an error; its output is in ``log``.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with log.open("wb") as said:
        words = list(map(str, command))
        try:
            program = subprocess.Popen(words, env=variables, stdout=said, stderr=subprocess.STDOUT)
        except OSError as error:
            raise Failed(f"{words[0]}: {error.strerror}") from None
        _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait again
    if status:
        lines = log.read_text(errors="replace").split("\n")
        raise Failed(next((line for line in reversed(lines) if line.strip()), f"exit status {status}"))
    return used.ru_utime + used.ru_stime


def say(line: str) -> None:
    """At once, and beside the table."""
    print(line, file=sys.stderr, flush=True)
