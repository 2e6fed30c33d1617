"""The short form of ``make test-kills``, which kills the whole workflow a hundred times."""

from __future__ import annotations

import random

import pytest
import yaml
from killing import SCHEDULE, Killer, differences, training, undisturbed

from tiltbox.mini import render_mini
from tiltbox.stages.split import split


def test_a_training_of_two_processes_that_is_killed_twice(tmp_path):
    """Whatever is killed, and when: the same command ends with the same bits."""
    render_mini(tmp_path / "raw", images={"train": 4, "val": 2, "test": 0}, size=128)
    for name in ("train", "val"):
        split([tmp_path / "raw" / name], tmp_path / name, size=128, overlap=0, workers=1)
    schedule = tmp_path / "schedule.yaml"
    schedule.write_text(yaml.safe_dump(SCHEDULE | {"epochs": 6, "workers": 0}))
    command = training(tmp_path, schedule, "--processes", "2")
    for name in ("once", "killed"):
        (tmp_path / name).mkdir()
    seconds = undisturbed(command, tmp_path / "once")
    seed = random.randrange(10**6)
    print("seed", seed)
    killer = Killer(command, tmp_path / "killed", random.Random(seed), longest=seconds)
    killer.to_the_end(2)
    assert differences(tmp_path / "once/out", tmp_path / "killed/out") == []


def test_what_differs(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, seconds, loss in ((one, 1.5, 3), (two, 61.0, 4)):
        (folder / "a").mkdir(parents=True)
        (folder / "a/times.json").write_text(f'{{"epochs": 3, "of": [{{"seconds": {seconds}}}]}}')
        (folder / "a/history.csv").write_text(f"epoch,seconds,val_seconds\n1,{seconds},2\n")
        (folder / "page.md").write_text(f"| time | {'13 s' if seconds < 9 else '1 min 13 s'} |")
        (folder / "loss.csv").write_text(f"epoch,loss\n1,{loss}\n")
    assert differences(one, one) == []
    assert differences(one, two) == ["loss.csv"]
    (two / "left").touch()
    assert differences(one, two) == ["left: only in one of both", "loss.csv"]
    with pytest.raises(AssertionError):
        differences(tmp_path / "typo", tmp_path / "typo")
