"""Every path of the project, from dataset, variant and stage; all relative to the repository root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DATA, RESULTS, LOGS, BENCHMARKS = Path("data"), Path("results"), Path("logs"), Path("logs/benchmarks")
# Where `mlflow ui` without arguments looks for its records and for the files that belong to them.
TRACKING_DATABASE, TRACKING_FILES = Path("mlflow.db"), Path("mlartifacts")

LEFT_OUT = "left_out.csv"  # in a folder of patches: the objects that are on none of them, and why


def raw(dataset: str) -> Path:
    return DATA / dataset / "raw"


def patches(dataset: str, splits: Sequence[str]) -> Path:
    """Patches of one split, or of several cut into one folder (``train`` and ``val``: ``trainval``)."""
    return DATA / dataset / "patches" / "".join(splits)


def variant(dataset: str, name: str) -> Path:
    return RESULTS / dataset / name


def checkpoint(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "train" / "checkpoint.pth"


def config(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "train" / "config.py"


def history(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "train" / "history.csv"


def training_facts(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "train" / "train.json"


def detections(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "predict" / "detections.parquet"


def task1(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "merge"


def metrics(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "evaluate" / "metrics.json"


def complexity(dataset: str, name: str) -> Path:
    return variant(dataset, name) / "complexity" / "complexity.json"


def tracking_mark(dataset: str) -> Path:
    """Stands for the database: beside the results, since a lost mark would have them made again."""
    return RESULTS / dataset / ".tracking"


def weights_mark(dataset: str, name: str) -> Path:
    """Stands for weights in PyTorch's download cache."""
    return variant(dataset, name) / ".weights"


def leaderboard(dataset: str, suffix: str) -> Path:
    return RESULTS / dataset / f"leaderboard.{suffix}"
