"""What the precision of the layers changes: trainings on a GPU, or on a CPU that rounds as a GPU does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from rounded import PRECISIONS
from trainings import Trainer, changed

from tiltbox.settings.schedules import Schedule

ROUNDED = (sys.executable, Path(__file__).with_name("rounded.py"))
ON_GPU = {"float32, TF32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


def precisions(trainer: Trainer, schedule: Schedule) -> dict[str, tuple[Trainer, Schedule]]:
    """The rows of the table."""
    if trainer.gpus:
        return {
            name: (trainer, changed(schedule, {"precision": precision})) for name, precision in ON_GPU.items()
        }
    rounding = {name: replace(trainer, program=(*ROUNDED, name)) for name in PRECISIONS}
    return {name: (trainer, schedule) for name, trainer in ({"float32": trainer} | rounding).items()}
