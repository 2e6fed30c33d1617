"""Two processes with one image each give the losses of one process with two, and several resume to the bit.

Batch norm would see other batches, so it is frozen here. The only remaining difference is the order of
float32 sums.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.mini import render_mini
from tiltbox.model.checkpoint import read_checkpoint
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages.split import split
from tiltbox.training.config import runner_config
from tiltbox.training.resume import last_checkpoint

STEPS = 3
LEARNING_RATE = 1e-3  # of the smoke schedule; without shared gradients weights differ by about as much


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    render_mini(folder / "raw", images={"train": 2, "val": 0, "test": 0})
    split([folder / "raw/train"], folder / "patches", size=128, overlap=24, workers=1)
    return folder / "patches"


def losses(patches: Path, work: Path, processes: int, batch: int = 1) -> list[float]:
    """The mean losses of the first steps."""
    changes = {
        "processes": processes,
        "batch": batch,
        "max_steps": STEPS,
        "flip": 0.0,
        "rotate": 0.0,
        "ema_momentum": None,
        "threads": 1,
        "checkpoint_minutes": 0,
    }
    schedule = find_schedule("smoke").model_copy(update=changes)
    variant = find_variant("yoloms-xs-current")
    config = runner_config(variant, schedule, patches, work, DOTA_V1_CLASSES, cuda=False)
    config.custom_hooks.append({"type": "FrozenBatchNorm"})
    config.custom_imports = {"imports": ["frozen_batch_norm"]}
    last = last_checkpoint(work)
    config.update({"pretrained": None, "resume": last is not None, "load_from": last and str(last)})
    work.mkdir(exist_ok=True)
    path = work / "config.py"
    config.dump(path)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable,
        *(torchrun if processes > 1 else []),
        "-m",
        "tiltbox.training.worker",
        str(path),
    ]
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    search = {"PYTHONPATH": os.pathsep.join(filter(None, places)), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | search, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with (work / "history.csv").open() as stream:
        return [
            float(row[name]) for row in csv.DictReader(stream) for name in ("loss", "loss_cls", "loss_bbox")
        ]


def weights(work: Path) -> torch.Tensor:
    state, _ = read_checkpoint(last_checkpoint(work))
    return torch.cat([value.flatten() for value in state.values() if value.is_floating_point()])


def test_two_processes_equal_one(patches, tmp_path):
    one = losses(patches, tmp_path / "one", processes=1, batch=2)
    two = losses(patches, tmp_path / "two", processes=2)
    assert two == pytest.approx(one, rel=3e-6)
    apart = (weights(tmp_path / "one") - weights(tmp_path / "two")).abs()
    assert apart.mean() < LEARNING_RATE / 100


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_resume_to_the_bit(patches, tmp_path, processes):
    """With three, the order of a sum over processes shows."""
    before, once = losses(patches, tmp_path, processes), weights(tmp_path)
    last_checkpoint(tmp_path).unlink()  # so the last step is repeated
    assert losses(patches, tmp_path, processes) == before
    assert torch.equal(weights(tmp_path), once)
