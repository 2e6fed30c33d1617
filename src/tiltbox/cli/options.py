"""Options that several verbs share, and what stages take for their values."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltbox.settings.schedules import Schedule


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes an integer from ``least`` on."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"'{text}' is not an integer of at least {least}")
        return int(text)

    return count


def add_out(verb: ArgumentParser, metavar: str, help: str) -> None:
    verb.add_argument("--out", type=Path, required=True, metavar=metavar, help=help)


def add_variant(verb: ArgumentParser) -> None:
    verb.add_argument(
        "variant", metavar="VARIANT", help="a row of configs/variants.yaml, e.g. yoloms-xs-current"
    )


def add_results(verb: ArgumentParser) -> None:
    verb.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder of a dataset, or part of it")


def add_labels(verb: ArgumentParser) -> None:
    verb.add_argument("--labels", type=Path, required=True, metavar="DIR", help="labelTxt folder of images")


def add_data_file(verb: ArgumentParser) -> None:
    help = "for a predictions.json: its model's data file, which gives the class name of each category id"
    verb.add_argument(
        "--names", dest="data_file", type=Path, metavar="DATA.yaml", help=f"{help} (default: DOTAv1.yaml)"
    )


def add_track(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--track", metavar="EXPERIMENT/RUN", help="log to MLflow (mlflow.db here, or MLFLOW_TRACKING_URI)"
    )


def add_gpus(verb: ArgumentParser, default: str) -> None:
    """
    Args:
        default: What ``auto`` means for this verb.
    """
    verb.add_argument(
        "--gpus", type=_gpu_count, metavar="N", help=f"GPUs to use, 0 for the CPU (default: auto, {default})"
    )


def _gpu_count(text: str) -> int | None:
    return None if text == "auto" else at_least(0)(text)


def add_schedule(verb: ArgumentParser, auto: str = "one that fits patches and GPUs") -> None:
    """
    Args:
        auto: What ``auto`` means for this verb.
    """
    help = f"a schedule, or auto: {auto} (default: that of the dataset, or auto)"
    verb.add_argument("--schedule", metavar="NAME_OR_FILE", help=help)


def schedule_of(options: Namespace) -> Schedule | None:
    """The chosen schedule; None for auto."""
    from tiltbox.settings.auto import AUTO
    from tiltbox.settings.datasets import find_dataset
    from tiltbox.settings.schedules import find_schedule

    own = find_dataset(options.dataset).schedule if options.dataset else AUTO
    name = options.schedule or own
    return None if name == AUTO else find_schedule(name)


def add_dataset(verb: ArgumentParser, *, schedule: bool = False) -> None:
    """
    Args:
        schedule: Whether the dataset's schedule counts, too.
    """
    used = "the classes and the schedule of this dataset" if schedule else "the classes of this dataset"
    default = "the classes of DOTA-v1.0, and auto" if schedule else "DOTA-v1.0"
    verb.add_argument("--dataset", metavar="DATASET", help=f"use {used} (default: {default})")


def classes_of(options: Namespace) -> tuple[str, ...]:
    if options.dataset is None:
        from tiltbox.dota.classes import DOTA_V1_CLASSES

        return DOTA_V1_CLASSES
    from tiltbox.settings.datasets import find_dataset

    return find_dataset(options.dataset).classes


def dataset_name_of(options: Namespace) -> str:
    """The name that the dataset's file gives it, which may be asked for by its path; empty without one."""
    from tiltbox.settings.datasets import find_dataset

    return find_dataset(options.dataset).name if options.dataset else ""
