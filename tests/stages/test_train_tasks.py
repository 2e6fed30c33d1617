"""Two tasks, as on two nodes of SLURM, train like two processes: with variables as SLURM sets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiltbox.mini import render_mini
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages.split import split

NAME = "yoloms-xs-previous"
pytestmark = pytest.mark.own_processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    render_mini(folder / "raw", images={"train": 1, "val": 0, "test": 0})
    split([folder / "raw/train"], folder / "train", size=128, overlap=24, workers=1)
    schedule = find_schedule("smoke").model_dump(mode="json") | {"threads": 1, "workers": 0}
    (folder / "schedule.yaml").write_text(yaml.safe_dump(schedule))
    return folder


def begin(
    folder: Path, out: str, *options: str, patches: str = "train", **variables: str
) -> subprocess.Popen:
    command = [sys.executable, "-m", "tiltbox", "train", NAME, "--schedule", folder / "schedule.yaml"]
    command += ["--patches", folder / patches, "--out", folder / out, "--gpus", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def tasks(folder: Path, out: str, **changes: str) -> tuple[list[int], list[str]]:
    """Exit codes and messages of two tasks."""
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    both = [begin(folder, out, SLURM_PROCID=number, **step, **changes) for number in ("1", "0")]
    messages = [each.communicate(timeout=200)[1] for each in both]
    return [each.returncode for each in both], messages


def test_weights_are_those_of_two_processes(folder):
    codes, messages = tasks(folder, "tasks")
    assert codes == [0, 0], messages
    alone = begin(folder, "processes", "--processes", "2")
    assert alone.wait(200) == 0, alone.stderr.read()
    one, other = ((folder / name / "checkpoint.pth").read_bytes() for name in ("tasks", "processes"))
    assert one == other
    assert [path.name for path in (folder / "tasks").glob(".tiltbox-tasks*")] == []
    assert "training with 2 tasks of SLURM step 7.0.0.0" in messages[1]


def test_what_keeps_the_first_task_from_beginning_ends_the_other(folder):
    codes, (other, first) = tasks(folder, "failed", patches="nothing")
    assert codes == [1, 1]
    assert "manifest.json: file not found; cut the images" in first
    assert "task 0 could not begin the training; see its messages" in other
