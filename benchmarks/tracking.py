"""The cost of MLflow for a training: CPU time of the reporting thread, over that of the training's processes.

Both are from the same training, so other work on the machine affects both alike. MLflow is the server that
MLFLOW_TRACKING_URI names, else a fresh database.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from functools import wraps
from pathlib import Path

from measure import machine, table

from tiltbox.mini import render_mini
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import OTHERS, find_schedule
from tiltbox.stages.split import split
from tiltbox.stages.train import train
from tiltbox.tracking import catching_up, following, store, usage

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DURING = ("sampling the machine", "telling epochs")  # while steps are done; the rest before and after them


class Spent:
    """CPU seconds in a thread, by what it does."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def watch(self, owner: object, name: str, what: str) -> None:
        """Count the calls of a function."""
        function = getattr(owner, name)

        @wraps(function)
        def counted(*args, **kwargs):
            before = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.times.setdefault(what, []).append(time.thread_time() - before)

        setattr(owner, name, counted)


def measured(variant: str, images: int, epochs: int, folder: Path) -> tuple[Spent, float, float]:
    """What was spent on MLflow, and the CPU seconds and the seconds by the clock of the training itself."""
    spent = Spent()
    spent.watch(store, "prepare", "finding the experiment, once, before")
    spent.watch(usage.Usage, "sample", DURING[0])
    spent.watch(following._Follower, "_tell_progress", DURING[1])
    spent.watch(catching_up, "_counts", "counting parameters and FLOPs, once, after")
    spent.watch(catching_up, "log_training", "files and state, once, after")
    spent.watch(catching_up, "log_model", "the model, once, after")
    row = find_variant(variant)
    patches = patches_of(images, folder)
    schedule = find_schedule("mini").model_copy(update={"epochs": {OTHERS: epochs}})
    before = children()
    train(variant, row, schedule, patches, folder / "out", gpus=0, track=f"benchmark/{variant}")
    with (folder / "out/history.csv").open(newline="") as file:
        clock = sum(float(line["seconds"]) for line in csv.DictReader(file))
    return spent, children() - before, clock


def patches_of(images: int, folder: Path) -> Path:
    render_mini(folder / "raw", seed=0, images={"train": images, "val": 1, "test": 1})
    split([folder / "raw/train"], folder / "patches", size=128, overlap=24, workers=1)
    return folder / "patches"


def children() -> float:
    """CPU seconds of the processes that have ended, which are those of the training."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="yoloms-xs-current")
    parser.add_argument("--images", type=int, default=150, help="of the mini set")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("configs").symlink_to(CONFIGS)
        spent, cpu, clock = measured(options.variant, options.images, options.epochs, Path(folder))
    print(f"{machine('mlflow')}\n")
    print(f"{options.variant}, {options.epochs} epochs: {cpu:.1f} CPU seconds, {clock:.1f} by the clock\n")
    rows = [
        [what, str(len(times)), f"{sum(times):.3f}", f"{100 * sum(times) / cpu:.2f} %"]
        for what, times in spent.times.items()
    ]
    during = sum(sum(spent.times.get(what, ())) for what in DURING)
    rows.append(["while steps are done", "", f"{during:.3f}", f"{100 * during / cpu:.2f} %"])
    print(table(["", "calls", "CPU s", "of the training"], rows))


if __name__ == "__main__":
    main()
