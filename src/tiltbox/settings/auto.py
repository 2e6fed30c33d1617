"""``schedule: auto``: the recipe, the epochs and the image size that fit the data and the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tiltbox.settings.schedules import OTHERS, SMALLEST_IMAGE, Schedule, find_schedule

AUTO = "auto"
LARGE = 4000  # patches with objects; from this number on the published recipe pays off; DOTA-v1.0 has 12,800
STEPS = {"small-cpu": 1200, "small-gpu": 6000}  # further steps bring little
EPOCHS = {"small-cpu": (4, 100), "small-gpu": (12, 300)}  # at least and at most
OBJECT_SIDE = 12  # least pixels of the median object on a CPU: one and a half cells of the finest level
SMALLEST, LARGEST = 128, 1024  # image sizes


@dataclass(frozen=True)
class TrainingData:
    """The facts by which a schedule is chosen.

    Attributes:
        patches: Patches with objects.
        objects: Objects in all patches.
        size: Side of a patch in pixels.
        object_side: Median of the square root of the objects' areas, in pixels of the patches.
    """

    patches: int
    objects: int
    size: int
    object_side: float


def choose(data: TrainingData, gpus: int, processes: int = 1) -> tuple[Schedule, str]:
    """The schedule for these data on this many GPUs, and one line that says what was chosen and why.

    Args:
        processes: Processes that share the steps on a CPU.

    >>> schedule, line = choose(TrainingData(480, 1039, 512, 22.0), gpus=0)
    >>> print(line)
    schedule auto: small-cpu, 10 epochs at 288 px, for 480 patches with 1,039 objects and no GPU
    """
    name = base(data.patches, gpus)
    schedule = find_schedule(name)
    changes: dict[str, Any] = {"image_size": _image_size(data, gpus)}
    if name in STEPS:
        epochs = _epochs(name, schedule.on(gpus or processes, cuda=gpus > 0), data.patches)
        changes["epochs"] = {OTHERS: epochs}
    chosen = schedule.model_copy(update=changes)
    device = {0: "no GPU", 1: "1 GPU"}.get(gpus, f"{gpus} GPUs")
    count = chosen.epochs[OTHERS]
    line = (
        f"schedule auto: {name}, {count} {'epoch' if count == 1 else 'epochs'} at {chosen.image_size} px,"
        f" for {data.patches:,} patches with {data.objects:,} objects and {device}"
    )
    return chosen, line


def base(patches: int, gpus: int) -> str:
    """The name of the schedule to adapt to the data: the published one if there are enough."""
    if gpus and patches >= LARGE:
        return "dota-2gpu" if gpus > 1 else "dota-1gpu"
    return "small-gpu" if gpus else "small-cpu"


def fitting_gpus(patches: int, here: int) -> int:
    """How many of the GPUs here a training on this many patches with objects takes: as its schedule says."""
    return min(here, find_schedule(base(patches, here)).processes)


def candidates(gpus: int) -> dict[str, Schedule]:
    """The schedules to choose from, by name: for few data and for many."""
    return {name: find_schedule(name) for name in (base(0, gpus), base(LARGE, gpus))}


def before_the_data(gpus: int) -> Schedule:
    """What is known of the schedule before there are patches: numbers of processes, threads and workers.

    Snakemake must say then how many GPUs a training gets, and so takes as many as fit few patches.
    """
    return find_schedule(base(0, gpus))


def for_prediction() -> Schedule:
    """For weights that do not say how they were trained: as for published ones, on all threads."""
    return before_the_data(0).model_copy(update={"image_size": LARGEST, "threads": None})


def _epochs(name: str, schedule: Schedule, patches: int) -> int:
    images = STEPS[name] * schedule.batch * schedule.processes
    least, most = EPOCHS[name]
    return min(max(math.ceil(images / max(patches, 1)), least), most)


def _image_size(data: TrainingData, gpus: int) -> int:
    """The size of patches on a GPU; on a CPU as small as the objects allow, since time grows with area."""
    wanted = data.size if gpus or not data.object_side else data.size * OBJECT_SIDE / data.object_side
    largest = min(max(math.floor(data.size / 32) * 32, SMALLEST_IMAGE), LARGEST)
    return min(max(math.ceil(wanted / 32) * 32, SMALLEST), largest)
