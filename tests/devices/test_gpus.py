from __future__ import annotations

import pytest

from tiltbox.devices import gpus
from tiltbox.devices.gpus import gpus_here, named_gpus, require_gpus
from tiltbox.errors import SettingsError


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without a GPU, a driver or the variable."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)


def test_none():
    assert named_gpus() is None and gpus_here() == 0


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("3, 5,", ["3", "5"]),
        ("2,-1,0", ["2"]),
        ("GPU-8f2a,MIG-11", ["GPU-8f2a", "MIG-11"]),
    ],
)
def test_the_variable_comes_first(tmp_path, monkeypatch, variable, names):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert named_gpus() == names and gpus_here() == len(names)


def test_device_files(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus_here() == 2


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("echo 'GPU 0: NVIDIA A (UUID: GPU-1)'; echo '  MIG 1g: (UUID: MIG-1)'; echo 'GPU 1: NVIDIA B'", 2),
        ("echo 'GPU 0: broken'; exit 9", 0),
    ],
)
def test_without_device_files_the_driver_is_asked(tmp_path, monkeypatch, script, count):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(gpus.shutil, "which", lambda name: str(program))
    assert gpus_here() == count


def test_more_than_there_are():
    assert [require_gpus(count, 2, "--gpus ") for count in (0, 2)] == [0, 2]
    with pytest.raises(SettingsError) as error:
        require_gpus(3, 2, "gpus=")
    assert str(error.value) == "gpus: asks for 3, but this machine has 2; choose gpus=2"
