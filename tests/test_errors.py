from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tiltbox.dota.labels import read_labels
from tiltbox.errors import (
    CheckpointError,
    DataError,
    EndedError,
    OutputError,
    SettingsError,
    TiltboxError,
    TrainingError,
    choice_of,
)
from tiltbox.processes import map_in_processes

KINDS = [
    TiltboxError,
    SettingsError,
    DataError,
    CheckpointError,
    TrainingError,
    EndedError,
    OutputError,
]


@pytest.mark.parametrize("kind", KINDS)
def test_says_where_what_and_what_to_do(kind):
    error = kind(Path("labels/P1.txt"), "is malformed", "correct it")
    assert str(error) == "labels/P1.txt: is malformed; correct it"
    assert (error.where, error.problem, error.remedy) == ("labels/P1.txt", "is malformed", "correct it")
    assert isinstance(error, TiltboxError)


@pytest.mark.parametrize("kind", KINDS)
def test_pickles(kind):
    error = pickle.loads(pickle.dumps(kind("a.yaml: key", "is wrong", "fix it")))
    assert type(error) is kind
    assert str(error) == "a.yaml: key: is wrong; fix it"
    assert error.remedy == "fix it"


def test_comes_from_a_worker_process(tmp_path):
    missing = tmp_path / "P1.txt"
    with pytest.raises(DataError) as error:
        map_in_processes(read_labels, [missing] * 2, 2, "missing")
    assert error.value.where == str(missing) and error.value.remedy == "check the path"


@pytest.mark.parametrize(
    ("name", "names", "remedy"),
    [
        ("ship", [], "choose one of "),
        ("sihp", ["plane", "ship"], "did you mean 'ship'?"),
        ("SHIP", ["plane", "ship"], "did you mean 'ship'?"),
        ("ships", ["Plane", "Ship"], "did you mean 'Ship'?"),
        ("x", ["Ship", "ship", "plane"], "choose one of Ship, ship, plane"),
    ],
)
def test_choice(name, names, remedy):
    assert choice_of(name, iter(names)) == remedy
