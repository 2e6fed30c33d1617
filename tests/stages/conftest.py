"""Trainings without separate processes, each of which takes seconds to import everything again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tiltbox.processes import run_program
from tiltbox.training import worker


@pytest.fixture
def in_this_process(request, monkeypatch) -> None:
    """Train in the process of the test, unless it is marked ``own_processes`` or asks for more than one."""
    if request.node.get_closest_marker("own_processes"):
        return

    def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
        if "torch.distributed.run" in command:
            return run_program(command, environment)
        return worker.main(Path(command[-1]))

    monkeypatch.setattr("tiltbox.stages.train.run_program", run)
