"""What the precision of the layers changes: trainings on a GPU, or on a CPU that rounds as a GPU does."""

from __future__ import annotations

import sys
from pathlib import Path

from effects import Row
from rounded import PRECISIONS
from trainings import changed

from tiltbox.settings.schedules import Schedule

ROUNDED = (sys.executable, Path(__file__).with_name("rounded.py"))
ON_GPU = {"float32, TF32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


def precisions(schedule: Schedule, gpus: int) -> dict[str, Row]:
    """The rows of the table."""
    if gpus:
        return {name: Row(changed(schedule, {"precision": value})) for name, value in ON_GPU.items()}
    simulated = {name: Row(schedule, (*ROUNDED, name)) for name in PRECISIONS}
    return {"float32": Row(schedule)} | simulated
