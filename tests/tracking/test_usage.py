"""Samples of what a training uses, of the GPUs that it holds and no others."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from tiltbox.tracking.usage import Usage, read_samples


@pytest.fixture
def four_gpus(monkeypatch):
    """NVIDIA's library on a machine with four GPUs, each of which is as busy as its number."""
    calls = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 4,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetHandleByUUID": lambda name: int(name[-1]),
        "nvmlDeviceGetMemoryInfo": lambda number: SimpleNamespace(used=number, total=4),
        "nvmlDeviceGetUtilizationRates": lambda number: SimpleNamespace(gpu=10 * number),
        "nvmlDeviceGetPowerUsage": lambda number: 1000 * number,
        "nvmlDeviceGetEnforcedPowerLimit": lambda number: 4000,
    }
    for name, call in calls.items():
        monkeypatch.setattr(pynvml, name, call)


@pytest.mark.parametrize(
    ("visible", "used"),
    [("2", [20]), ("3,1", [30, 10]), ("GPU-2", [20]), ("", []), (None, [0, 10, 20, 30])],
)
def test_the_gpus_that_a_training_holds(four_gpus, tmp_path, monkeypatch, visible, used):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    Usage(tmp_path / "usage").sample()
    (sample,) = read_samples(tmp_path / "usage")
    named = {f"system/gpu_{number}_utilization_percentage": value for number, value in enumerate(used)}
    assert {key: value for key, value in sample.items() if "gpu" in key and "utilization" in key} == named
    assert sample["system/cpu_utilization_percentage"] >= 0


def test_a_sample_that_was_cut_off_is_passed_over(tmp_path):
    (tmp_path / "usage").write_text('{"time": 1}\n{"ti')
    assert read_samples(tmp_path / "usage") == [{"time": 1}]
