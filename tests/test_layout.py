from __future__ import annotations

from pathlib import Path

import pytest

from tiltbox import layout


def test_patches_of_no_split():
    assert layout.patches("mini", []) == Path("data/mini/patches")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (layout.raw("mini"), "data/mini/raw"),
        (layout.patches("mini", ["train"]), "data/mini/patches/train"),
        (layout.patches("dota", ["train", "val"]), "data/dota/patches/trainval"),
        (layout.results("mini", "v"), "results/mini/v"),
        (layout.checkpoint("mini", "v"), "results/mini/v/train/checkpoint.pth"),
        (layout.config("mini", "v"), "results/mini/v/train/config.py"),
        (layout.history("mini", "v"), "results/mini/v/train/history.csv"),
        (layout.training_facts("mini", "v"), "results/mini/v/train/train.json"),
        (layout.detections("mini", "v"), "results/mini/v/predict/detections.parquet"),
        (layout.task1("mini", "v"), "results/mini/v/merge"),
        (layout.metrics("mini", "v"), "results/mini/v/evaluate/metrics.json"),
        (layout.complexity("mini", "v"), "results/mini/v/complexity/complexity.json"),
        (layout.leaderboard("mini", "html"), "results/mini/leaderboard.html"),
        (layout.tracking_mark("mini"), "results/mini/.tracking"),
        (layout.weights_mark("mini", "yoloms-s-current"), "results/mini/yoloms-s-current/.weights"),
        (layout.TRACKING_DATABASE, "mlflow.db"),
    ],
)
def test_paths_of_the_design(path, expected):
    assert path == Path(expected)
