"""What each part of a recipe contributes: trainings without one part each, and with one part alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from measure import table
from trainings import SCORES, TILTBOX, Failed, Trainer, changed, say

from tiltbox.settings.schedules import Schedule

#: The parts of a recipe, and what a schedule says without each.
PARTS: dict[str, dict] = {
    "Muon": {"muon_lr": None},
    "task-aligned assigner": {"objective": {"assigner": "dynamic-soft-label", "least_side": 0}},
    "cross-entropy": {"objective": {"focus": 2.0}},
    "angle loss": {"objective": {"angle_weight": 0.0}},
    "heavier IoU loss": {"objective": {"iou_weight": 2.0}},
    "mosaic": {"mosaic": 0.0},
    "small images at first": {"early_scale": 1.0},
    "linear decay": {"decay": "cosine", "constant_share": 0.6, "final_share": 0.05},
    "short EMA warm-up": {"ema_warmup": 2000},
}
ALONE = ("Muon", "task-aligned assigner", "cross-entropy", "mosaic")  # the strongest, tried on their own
ROTATION = {"rotate": 0.5}


class Row(NamedTuple):
    """A training of the table: its schedule, and the beginning of the command that trains."""

    schedule: Schedule
    program: Sequence[object] = TILTBOX


def recipes(name: str, recipe: Schedule) -> dict[str, Row]:
    """The rows of the table; those that train like an earlier one are left out."""
    plain = recipe
    for part in PARTS.values():
        plain = changed(plain, part)
    rows = {f"recipe of {name}": recipe}
    rows |= {f"without {part}": changed(recipe, changes) for part, changes in PARTS.items()}
    rows["none of them"] = plain
    rows |= {f"{part} alone": changed(plain, _own_values(recipe, PARTS[part])) for part in ALONE}
    rows["with random rotation"] = changed(recipe, ROTATION)
    return {name: Row(schedule) for name, schedule in _different(rows).items()}


def compared(rows: Mapping[str, Row], trainer: Trainer, jobs: int) -> tuple[str, bool]:
    """The table of all rows, and whether all trainings finished."""
    with ThreadPoolExecutor(jobs) as pool:
        cells = list(pool.map(partial(_trained, trainer), rows, rows.values(), range(len(rows))))
    lines = [[name, *row] for name, row in zip(rows, cells, strict=True)]
    return table(["", *SCORES, "CPU s"], lines), all(row[0] != FAILED for row in cells)


FAILED = "failed"


def _trained(trainer: Trainer, name: str, row: Row, number: int) -> Sequence[str]:
    out: Path = trainer.ground.folder / f"row-{number}"
    try:
        cpu = trainer.train(out, *row)
        cells = [*trainer.score(out).cells(), f"{cpu:.0f}"]
    except Failed as error:
        say(f"{name}: {FAILED}: {error}")
        return [FAILED] + [""] * len(SCORES)
    say(f"{name}: {', '.join(map(' '.join, zip((*SCORES, 'CPU s'), cells, strict=True)))}")
    return cells


def _own_values(schedule: Schedule, changes: Mapping) -> dict:
    """The schedule's own values of the keys that ``changes`` change."""
    own = schedule.model_dump()
    return {
        key: {inner: own[key][inner] for inner in value} if isinstance(value, Mapping) else own[key]
        for key, value in changes.items()
    }


def _different(rows: Mapping[str, Schedule]) -> dict[str, Schedule]:
    kept: dict[str, Schedule] = {}
    for name, schedule in rows.items():
        same = next((other for other in kept if kept[other] == schedule), None)
        if same is None:
            kept[name] = schedule
        else:
            say(f"{name}: left out, for it is '{same}'")
    return kept
