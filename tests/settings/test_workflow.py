from __future__ import annotations

from pathlib import Path

import pytest

from tiltbox.errors import SettingsError
from tiltbox.settings import workflow
from tiltbox.settings.base import read_yaml
from tiltbox.settings.workflow import resolve

CONFIG = Path(__file__).resolve().parents[2] / "configs/config.yaml"
LEAST = {"dataset": "mini", "variants": ["yoloms-xs-current"]}


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that this machine has so many."""
    return lambda count: monkeypatch.setattr(workflow, "gpus_here", lambda: count)


def test_nothing():
    with pytest.raises(SettingsError, match="dataset: is missing"):
        resolve({})


def test_shipped():
    plan = resolve(read_yaml(CONFIG))
    assert (plan.dataset.name, plan.schedule_name, plan.workflow.track) == ("mini", "mini", True)
    assert len(plan.variants) == 6


def test_paths_of_the_plan():
    plan = resolve(LEAST | {"dataset": "dota"})
    assert plan.train_patches == Path("data/dota/patches/trainval")
    assert plan.test_patches == Path("data/dota/patches/test")
    assert plan.schedule_name == "dota-2gpu"


def test_a_schedule_of_the_users_choice():
    assert resolve(LEAST | {"schedule": "smoke"}).schedule.max_steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datset": "mini"}, "config.yaml: datset: unknown key; did you mean 'dataset'?"),
        ({"dataset": "mnii"}, "unknown dataset 'mnii'; did you mean 'mini'?"),
        ({"dataset": "nowhere/mine.yaml"}, "nowhere/mine.yaml: there is no such file"),
        ({"dataset": 7}, "config.yaml: dataset: 7 is not accepted"),
        (
            {"variants": ["yoloms-xs-curent"]},
            "config.yaml: variants: unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'?",
        ),
        ({"variants": []}, "config.yaml: variants: [] is not accepted"),
        ({"variants": "yoloms-xs-current"}, "config.yaml: variants: 'yoloms-xs-current' is not accepted"),
        ({"schedule": "smok"}, "unknown schedule 'smok'; did you mean 'smoke'?"),
        ({"schedule": "mine.yaml"}, "mine.yaml: there is no such file"),
        ({"gpus": "maybe"}, "config.yaml: gpus: 'maybe' is not accepted"),
        ({"gpus": -1}, "config.yaml: gpus: -1 is not accepted"),
        ({"track": "maybe"}, "config.yaml: track: 'maybe' is not accepted"),
    ],
)
def test_refused(change, message):
    with pytest.raises(SettingsError) as error:
        resolve(LEAST | change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("asked", "here", "schedule", "expected"),
    [
        ("auto", 0, "dota-2gpu", 0),
        ("auto", 1, "dota-2gpu", 0),
        ("auto", 2, "dota-2gpu", 2),
        ("auto", 8, "dota-2gpu", 2),
        ("auto", 8, "dota-1gpu", 1),
        (0, 8, "dota-2gpu", 0),
        (4, 0, "dota-2gpu", 4),  # a cluster's head node has none
    ],
)
def test_gpus(gpus, asked, here, schedule, expected):
    gpus(here)
    assert resolve(LEAST | {"gpus": asked, "schedule": schedule}).gpus == expected


def test_what_a_training_depends_on(gpus):
    gpus(0)
    base = resolve(read_yaml(CONFIG))
    hashes = {name: base.depends_on(name) for name in base.variants}
    assert len(set(hashes.values())) == 6
    assert resolve(LEAST).depends_on("yoloms-xs-current") == hashes["yoloms-xs-current"]
    for change in ({"schedule": "smoke"}, {"gpus": 1}, {"dataset": "dota", "schedule": "mini"}):
        assert resolve(LEAST | change).depends_on("yoloms-xs-current") not in hashes.values()
