"""A training that is scored while it runs: on the test split, or on held-out training images."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.mini import render_mini
from tiltbox.model.checkpoint import read_checkpoint
from tiltbox.model.variants import find_variant
from tiltbox.provenance import read_provenance
from tiltbox.settings.schedules import OTHERS, Schedule, Validation, find_schedule
from tiltbox.stages.split import split
from tiltbox.stages.train import train
from tiltbox.stages.verify import verify
from tiltbox.training.resume import last_checkpoint

NAME = "yoloms-xs-current"
VARIANT = find_variant(NAME)
pytestmark = pytest.mark.usefixtures("in_this_process")


def schedule(epochs: int, **validation: object) -> Schedule:
    changes = {
        "epochs": {OTHERS: epochs},
        "max_steps": None,
        "batch": 4,
        "image_size": 64,
        "threads": 1,
        "validation": Validation(**validation),
    }
    return find_schedule("smoke").model_copy(update=changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two images to train on and one to validate on."""
    folder = tmp_path_factory.mktemp("mini")
    render_mini(folder / "raw", images={"train": 2, "val": 1, "test": 0})
    for name in ("train", "val"):
        split([folder / "raw" / name], folder / name, size=256, overlap=0, workers=1)
    return folder


def history(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)[0]


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_scores_during_training_do_not_change_weights(folder, tmp_path):
    """They are in the rows of their epochs, including the last one."""
    plan = schedule(3, every=2)
    for name, validate in (("with", folder / "val"), ("without", None)):
        train(NAME, VARIANT, plan, folder / "train", tmp_path / name, gpus=0, validate=validate)
    rows = history(tmp_path / "with")
    assert [bool(row["val_AP50"]) for row in rows] == [True, False, True]
    assert all(0 <= float(row["val_mAP"]) <= 1 for row in (rows[0], rows[2]))
    assert not any(row["val_AP50"] for row in history(tmp_path / "without"))
    facts = [json.loads((tmp_path / name / "train.json").read_text()) for name in ("with", "without")]
    assert facts[0]["validation"]["held_out_images"] == 0 and facts[1]["validation"] is None
    assert facts[0]["config_hash"] == facts[1]["config_hash"]
    ends = [weights(tmp_path / name / "checkpoint.pth") for name in ("with", "without")]
    assert same(*ends)


def test_the_best_of_a_training_that_ends_early(folder, tmp_path):
    """Nothing is learned in so few steps, so no epoch is better than the first."""
    out, patience = tmp_path / "out", {"patience": 1, "checkpoint": "best"}
    plan = schedule(5, every=1, share=0.5, **patience)
    train(NAME, VARIANT, plan, folder / "train", out, gpus=0)
    facts = json.loads((out / "train.json").read_text())
    assert (facts["epochs"], facts["steps"], len(history(out))) == (2, 2, 2)
    found = facts["validation"]
    assert (found["held_out_images"], found["best_epoch"], found["checkpoint"]) == (1, 1, "best")
    assert facts["data"]["images"] == 1 and facts["data"]["patches"] <= 4

    shorter = schedule(5, every=1, share=0.5).model_copy(update={"max_steps": 1})
    train(NAME, VARIANT, shorter, folder / "train", tmp_path / "one", gpus=0)
    best, last = weights(out / "checkpoint.pth"), weights(out / "last.pth")
    assert same(best, weights(tmp_path / "one/checkpoint.pth")) and not same(best, last)
    assert any(name.endswith("last.pth") for name in read_provenance(out / "provenance.json").outputs)


def test_the_other_weights_of_an_earlier_training_are_removed(folder, tmp_path):
    plan = schedule(2, every=1)
    train(NAME, VARIANT, plan, folder / "train", tmp_path / "train", gpus=0, validate=folder / "val")
    assert (tmp_path / "train/best.pth").exists()
    train(NAME, VARIANT, plan, folder / "train", tmp_path / "train", gpus=0)
    assert not (tmp_path / "train/best.pth").exists()
    assert verify(tmp_path).problems == ()


def test_processes_share_the_patches(folder, tmp_path, caplog):
    plan, out = schedule(1, every=1), tmp_path / "out"
    train(NAME, VARIANT, plan, folder / "train", out, gpus=0, processes=2, validate=folder / "val")
    (row,) = history(out)
    assert row["val_AP50"] and row["val_mAP"]


def test_two_sets_to_validate_on(folder, tmp_path):
    plan = schedule(1, share=0.5)
    with pytest.raises(SettingsError, match="--validate: is for schedules without held-out images"):
        train(NAME, VARIANT, plan, folder / "train", tmp_path / "out", gpus=0, validate=folder / "val")


def test_patches_that_are_not_there(folder, tmp_path):
    with pytest.raises(DataError, match="contains no labelled patches to validate on"):
        train(NAME, VARIANT, schedule(1), folder / "train", tmp_path, gpus=0, validate=tmp_path / "gone")
    train(NAME, VARIANT, schedule(1, every=0), folder / "train", tmp_path, gpus=0, validate=tmp_path / "gone")


@pytest.mark.parametrize("name", ["best.pth", "last.pth"])
def test_weights_of_somebody_else_stay(folder, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"contains '{name}', which 'tiltbox train' did not write"):
        train(NAME, VARIANT, schedule(1), folder / "train", tmp_path, gpus=0)
    assert (tmp_path / name).read_text() == "mine"


class Cut(Exception):
    """Stands for the end of a training's process."""


def cut_off(*_: object) -> None:
    raise Cut


def unfinished(folder: Path, out: Path, plan: Schedule) -> None:
    """A training that was scored and killed after its last epoch."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("tiltbox.stages.train.publish", cut_off)
        train(NAME, VARIANT, plan, folder / "train", out, gpus=0, validate=folder / "val")


def test_resumed_without_validation(folder, tmp_path, caplog):
    """Earlier scores stay in the history; missing best weights give a warning."""
    plan, out = schedule(2, every=1), tmp_path / "out"
    unfinished(folder, out, plan)
    (out / "work/best_1.pth").unlink()
    train(NAME, VARIANT, plan, folder / "train", out, gpus=0)
    assert (
        "the weights of the best epoch, 1, are missing: those of the last epoch are used" in caplog.messages
    )
    assert json.loads((out / "train.json").read_text())["validation"]["best_epoch"] == 1
    assert not (out / "best.pth").exists() and not list(out.glob("work*"))


def test_resumed_with_other_patches_to_validate_on(folder, tmp_path, caplog):
    """Scores on different patches are not compared: earlier scores and the best weights are dropped."""
    plan, out = schedule(2, every=1).model_copy(update={"checkpoint_minutes": 0}), tmp_path / "out"
    unfinished(folder, out, plan)
    last_checkpoint(out / "work").unlink()
    train(NAME, VARIANT, plan, folder / "train", out, gpus=0, validate=folder / "train")
    assert [bool(row["val_AP50"]) for row in history(out)] == [False, True]
    assert json.loads((out / "train.json").read_text())["validation"]["best_epoch"] == 2
    said = "the patches to validate on have changed: the scores of earlier epochs are dropped"
    assert said in caplog.messages


def test_resumed_in_another_place_the_scores_stay(folder, tmp_path, caplog):
    plan, out = schedule(2, every=1), tmp_path / "out"
    unfinished(folder, out, plan)
    copy = shutil.copytree(folder / "val", tmp_path / "elsewhere")
    train(NAME, VARIANT, plan, folder / "train", out, gpus=0, validate=copy)
    assert all(row["val_AP50"] for row in history(out))
    assert not any("dropped" in message for message in caplog.messages)
