"""What is resumed, kept and deleted of a training that was cut off."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import find_schedule
from tiltbox.training.config import read_config, runner_config
from tiltbox.training.resume import can_resume, last_checkpoint, prepare_work

VARIANT, SMOKE = find_variant("yoloms-xs-current"), find_schedule("smoke")


def begun(work: Path, mark: str, steps: int = 0) -> Path:
    """The work folder of a training that was killed after this many steps, with a checkpoint of each."""
    work.mkdir(parents=True)
    (work / "config.py").write_text(f"fingerprint = '{mark}'\n")
    for step in range(1, steps + 1):
        with zipfile.ZipFile(work / f"step_{step}.pth", "w") as archive:  # as PyTorch writes it
            archive.writestr("archive/data.pkl", f"{mark} {step} " * 1000)
    return work


def training_of(checkpoint: Path) -> str:
    """The mark that :func:`begun` put into it."""
    return zipfile.ZipFile(checkpoint).read("archive/data.pkl").decode().split()[0]


def folders(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def config() -> Config:
    return runner_config(VARIANT, SMOKE, Path("patches"), Path("work"), DOTA_V1_CLASSES, cuda=False)


def test_nothing_was_begun(tmp_path):
    assert not prepare_work(tmp_path / "work", "a", wanted=True)
    assert not prepare_work(tmp_path / "work", "a", wanted=False)
    assert folders(tmp_path) == set()


def test_nothing_was_saved(tmp_path, caplog):
    caplog.set_level("INFO", "tiltbox")
    assert not prepare_work(begun(tmp_path / "work", "a"), "a", wanted=True)
    assert caplog.messages == ["starting over: nothing had been saved"]


def test_the_same_training_resumes(tmp_path):
    work = begun(tmp_path / "work", "a", steps=2)
    assert prepare_work(work, "a", wanted=True)
    assert last_checkpoint(work) == work / "step_2.pth"


@pytest.mark.parametrize("folder", ["work", "work.a"])
@pytest.mark.parametrize("steps", [0, 2])
def test_what_was_saved_is_found_as_it_is_taken_up(tmp_path, folder, steps):
    begun(tmp_path / folder, "a", steps)
    assert not can_resume(tmp_path / "work", "b")
    assert can_resume(tmp_path / "work", "a") == bool(steps)
    assert folders(tmp_path) == {folder}, "looking moves nothing"
    assert prepare_work(tmp_path / "work", "a", wanted=True) == bool(steps)


def test_it_resumes_after_the_project_was_moved(tmp_path):
    begun(tmp_path / "before/work", "a", steps=2)
    work = (tmp_path / "before").rename(tmp_path / "after") / "work"
    assert prepare_work(work, "a", wanted=True)
    assert last_checkpoint(work) == work / "step_2.pth"


def test_the_last_checkpoint_is_gone(tmp_path):
    work = begun(tmp_path / "work", "a", steps=1)
    (work / "step_1.pth").unlink()
    assert last_checkpoint(work) is None
    assert not prepare_work(work, "a", wanted=True)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_a_block(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, empty, lose_a_block])
def test_a_damaged_checkpoint_is_left_out(tmp_path, damage, caplog):
    work = begun(tmp_path / "work", "a", steps=11)
    damage(work / "step_11.pth")
    assert can_resume(work, "a")
    assert prepare_work(work, "a", wanted=True)
    assert last_checkpoint(work) == work / "step_10.pth"
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"{work}/step_11.pth is incomplete or damaged and was deleted"
    caplog.clear()
    assert prepare_work(work, "a", wanted=True)
    assert not caplog.records or caplog.records[0].levelname != "WARNING", "it is told once"


def test_all_checkpoints_are_damaged(tmp_path, caplog):
    caplog.set_level("INFO", "tiltbox")
    work = begun(tmp_path / "work", "a", steps=2)
    for path in work.glob("*.pth"):
        cut(path)
    assert not prepare_work(work, "a", wanted=True)
    assert caplog.messages[-1] == "starting over: nothing had been saved" and len(caplog.messages) == 3


def test_what_another_training_saved_is_kept_and_named(tmp_path, caplog):
    work = begun(tmp_path / "work", "a", steps=30)
    assert not prepare_work(work, "b", wanted=True)
    assert folders(tmp_path) == {"work.a"} and (tmp_path / "work.a/step_30.pth").exists()
    (line,) = caplog.messages
    assert f"what was trained is kept in {tmp_path}/work.a" in line and "--no-resume" in line


def test_a_training_that_saved_nothing_is_not_kept(tmp_path):
    assert not prepare_work(begun(tmp_path / "work", "a"), "b", wanted=True)
    assert folders(tmp_path) == set()


def test_former_settings_take_up_what_was_kept(tmp_path):
    work = begun(tmp_path / "work", "a", steps=3)
    prepare_work(work, "b", wanted=True)
    begun(work, "b", steps=1)
    assert prepare_work(work, "a", wanted=True)
    assert folders(tmp_path) == {"work", "work.b"}
    assert training_of(last_checkpoint(work)) == "a"


def test_back_and_forth_does_not_pile_up(tmp_path):
    work = begun(tmp_path / "work", "a", steps=3)
    prepare_work(work, "b", wanted=True)
    begun(work, "b", steps=1)
    for mark in "abab":
        assert prepare_work(work, mark, wanted=True)
    assert folders(tmp_path) == {"work", "work.a"}


def test_no_resume_drops_everything_unfinished(tmp_path):
    begun(tmp_path / "work", "a", steps=3)
    begun(tmp_path / "work.b", "b", steps=3)
    (tmp_path / "checkpoint.pth").touch()
    assert not prepare_work(tmp_path / "work", "a", wanted=False)
    assert folders(tmp_path) == {"checkpoint.pth"}


def test_a_configuration_reads_as_it_was_written(tmp_path):
    config().dump(tmp_path / "config.py")
    assert read_config(tmp_path / "config.py").to_dict() == config().to_dict()


def test_the_text_of_a_configuration_is_not_formatted_again(tmp_path, monkeypatch):
    """yapf takes most of a second, and mmengine asks for the text at the start and in each checkpoint."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", None)
    config().dump(tmp_path / "config.py")
    assert "YOLOMSBackbone" in read_config(tmp_path / "config.py").pretty_text
