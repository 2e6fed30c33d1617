"""Every path of the project, from dataset, variant and stage; all relative to the repository root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DATA, RESULTS, LOGS, BENCHMARKS = Path("data"), Path("results"), Path("logs"), Path("logs/benchmarks")
# Where `mlflow ui` without arguments looks for its records and for the files that belong to them.
TRACKING_DATABASE, TRACKING_FILES = Path("mlflow.db"), Path("mlartifacts")

SEED = "seed-"  # the start of the folder name of a training with a seed other than 0
TRAINING_LOCK = ".training.lock"  # stays in the folder of a training
OUTCOMES = "outcomes.parquet"  # beside the metrics
GALLERY = "gallery.json"  # beside the metrics, where evaluate was given the images
DETECTORS = Path("detectors")  # beside the leaderboard: a page for each
LEFT_OUT = "left_out.csv"  # in a folder of patches: the objects that no patch contains, and why


def raw(dataset: str) -> Path:
    return DATA / dataset / "raw"


def archives(dataset: str) -> Path:
    """Downloaded archives, unchanged."""
    return DATA / dataset / "archives"


def patches(dataset: str, splits: Sequence[str]) -> Path:
    """Patches of one split, or of several cut into one folder (``train`` and ``val``: ``trainval``)."""
    return DATA / dataset / "patches" / "".join(splits)


def run(variant: str, seed: int | str = 0) -> str:
    """The name of a training: the variant's, and for seeds other than 0 the seed.

    >>> run("yoloms-xs-current"), run("yoloms-xs-current", 3)
    ('yoloms-xs-current', 'yoloms-xs-current/seed-3')
    """
    return f"{variant}/{SEED}{seed}" if int(seed) else variant


def variant_and_seed(run: str) -> tuple[str, int]:
    """
    >>> variant_and_seed("yoloms-xs-current"), variant_and_seed("yoloms-xs-current/seed-3")
    (('yoloms-xs-current', 0), ('yoloms-xs-current', 3))
    """
    variant, _, seed = run.partition(f"/{SEED}")
    return variant, int(seed or 0)


def results(dataset: str, run: str) -> Path:
    """The results folder of a training, or of a variant."""
    return RESULTS / dataset / run


def checkpoint(dataset: str, name: str) -> Path:
    return results(dataset, name) / "train" / "checkpoint.pth"


def config(dataset: str, name: str) -> Path:
    return results(dataset, name) / "train" / "config.py"


def history(dataset: str, name: str) -> Path:
    return results(dataset, name) / "train" / "history.csv"


def training_facts(dataset: str, name: str) -> Path:
    return results(dataset, name) / "train" / "train.json"


def detections(dataset: str, name: str) -> Path:
    return results(dataset, name) / "predict" / "detections.parquet"


def task1(dataset: str, name: str) -> Path:
    return results(dataset, name) / "merge"


def metrics(dataset: str, name: str) -> Path:
    return results(dataset, name) / "evaluate" / "metrics.json"


def complexity(dataset: str, name: str) -> Path:
    return results(dataset, name) / "complexity" / "complexity.json"


def tracking_mark(dataset: str) -> Path:
    """Stands for the database; beside the results, since a lost mark would make them again."""
    return RESULTS / dataset / ".tracking"


def weights_mark(dataset: str, name: str) -> Path:
    """Stands for weights in PyTorch's download cache."""
    return results(dataset, name) / ".weights"


def gallery(dataset: str, name: str) -> Path:
    return metrics(dataset, name).with_name(GALLERY)


def detector_page(dataset: str, variant: str) -> Path:
    return RESULTS / dataset / DETECTORS / f"{variant}.html"


def leaderboard(dataset: str, suffix: str) -> Path:
    return RESULTS / dataset / f"leaderboard.{suffix}"
