"""Complexity as a stage: what it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tiltbox.__main__ import main
from tiltbox.errors import SettingsError
from tiltbox.model.variants import find_variant
from tiltbox.stages.complexity import complexity

NAME = "yoloms-xs-previous"


def test_what_is_written(tmp_path):
    out = tmp_path / "complexity.json"
    assert complexity(NAME, find_variant(NAME), out) == json.loads(out.read_text())
    content = json.loads(out.read_text())
    assert (content["variant"], content["input"]) == (NAME, [1, 3, 1024, 1024])
    assert (content["params"] / 1e6, content["flops"] / 1e9) == (
        pytest.approx(4.48, abs=0.005),  # as published
        pytest.approx(22.24, rel=5e-4),
    )


@pytest.mark.parametrize("size", [0, -32, 1000])
def test_a_size_that_the_detector_cannot_halve(tmp_path, size):
    with pytest.raises(SettingsError, match=f"--size: {size} is not a multiple of 32"):
        complexity(NAME, find_variant(NAME), tmp_path / "out.json", size=size)


def test_it_is_not_logged(tmp_path):
    """It exists before the training does, and would be logged to the run of the previous training."""
    with pytest.raises(SystemExit) as end:
        main(["complexity", NAME, "--out", str(tmp_path / "out.json"), "--track", "mini/run"])
    assert end.value.code == 2
