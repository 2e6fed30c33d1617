from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiltbox.metrics.bootstrap import Outcomes, resampled_aps
from tiltbox.metrics.outcomes_file import write_outcomes
from tiltbox.records import (
    AngleErrors,
    ClassMetrics,
    Complexity,
    CurvePoint,
    Epoch,
    Gallery,
    GalleryDetection,
    GalleryImage,
    GalleryObject,
    Metrics,
    Training,
)
from tiltbox.report.collect import Row
from tiltbox.settings.published import Published, load_published

TRAINING = {
    "size": "xs",
    "series": "YOLO-MS previous",
    "pretrained": None,
    "augmentation": ("flip", "RR"),
    "epochs": 6,
    "steps": 444,
    "images_per_step": 8,
    "processes": 2,
    "learning_rate": 0.004,
    "image_size": 128,
    "seed": 0,
    "device": "CPU",
    "seconds": 754.0,
    "config_hash": "0123456789ab",
    "git_commit": "abc1234",
    "versions": {"torch": "2.13.0"},
}


def curve(name: str, *points: tuple[float, float], threshold: float = 0.5) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(**{"class": name, "threshold": threshold, "recall": recall, "precision": precision})
        for recall, precision in points
    )


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A finished variant, named like ``yoloms-xs-previous``; a stage given as None has not run yet.

    A current one is compared with the previous one of its size.

    ``angle`` is the median and the 90th percentile; None gives the record of an older version.
    """

    def make(
        name: str, ap50: float | None = 0.5, angle: tuple[float, float] | None = (4.25, 20), **changes
    ) -> Row:
        _, size, generation = name.split("-")[:3]
        series = f"YOLO-MS {generation}"
        recipe = {**TRAINING, "size": size, "series": series, **changes.pop("recipe", {})}
        errors = angle and AngleErrors(median=angle[0], p90=angle[1], objects=2)
        no_errors = angle and AngleErrors(median=None, p90=None, objects=0)
        scored = ClassMetrics(AP50=ap50, AP75=0.1, mAP=0.2, angle_error=errors, objects=4, detections=9)
        absent = ClassMetrics(AP50=None, AP75=None, mAP=None, angle_error=no_errors, objects=0, detections=3)
        parts = {
            "dataset": "mini",
            "size": size,
            "series": series,
            "compared_with": (f"yoloms-{size}-previous",) if generation == "current" else (),
            "training": Training(**recipe),
            "history": (Epoch(epoch=1, loss=1.5), Epoch(epoch=2, loss=1.25)),
            "metrics": Metrics(
                dataset="mini",
                split="val",
                images=24,
                objects=4,
                AP50=ap50,
                AP75=0.1,
                mAP=0.2,
                angle_error=errors,
                classes={"plane": scored, "ship": absent},
            ),
            "curves": curve("plane", (0.25, 1), (0.5, 0.8)) + curve("plane", (0.25, 0.5), threshold=0.75),
            "complexity": Complexity(input=(1, 3, 1024, 1024), params=4_480_000, flops=22_240_000_000),
        }
        return Row(name, **(parts | changes))

    return make


PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAA"
    "SUVORK5CYII="
)


def box(x: float, y: float) -> tuple[float, ...]:
    return (x, y, x + 10, y, x + 10, y + 6, x, y + 6)


@pytest.fixture
def make_gallery() -> Callable[..., Gallery]:
    """An image with four ships, one of them difficult; ``found`` of the other three are found, in order.

    Each of ``alarms`` is a detection of nothing, with that score.
    """

    def make(found: int = 2, alarms: tuple[float, ...] = (0.5,), **changes) -> Gallery:
        objects = [GalleryObject(kind="ship", corners=box(10 * at, 20), difficult=at == 3) for at in range(4)]
        right = [
            GalleryDetection(kind="ship", corners=box(10 * at, 21), score=0.9, verdict="right", object=at)
            for at in range(found)
        ]
        wrong = [
            GalleryDetection(kind="plane", corners=box(50, 60), score=score, verdict="wrong")
            for score in alarms
        ]
        aside = GalleryDetection(kind="ship", corners=box(30, 21), score=0.4, verdict="aside")
        parts = {
            "name": "P1",
            "source": "0" * 32,
            "left": 0,
            "top": 0,
            "width": 100,
            "height": 80,
            "picture": PIXEL,
            "objects": tuple(objects),
            "detections": (*right, *wrong, aside),
        }
        return Gallery(iou=0.5, score=0.3, images=(GalleryImage(**(parts | changes)),))

    return make


@pytest.fixture(scope="session")
def published() -> Published:
    return load_published()


@pytest.fixture
def with_outcomes(make_row, tmp_path) -> Callable[..., Row]:
    """A variant that finds this many of the 30 objects on 30 images and is wrong on the rest, for each run.

    Runs have the seeds 0, 1, … and the scores that their outcomes give.
    """

    def make(name: str, *found: int) -> Row:
        first, *others = [_run(make_row, tmp_path, name, count, seed) for seed, count in enumerate(found)]
        return replace(first, others=tuple(others))

    return make


IMAGES = tuple(f"P{number}" for number in range(30))


def _run(make_row: Callable[..., Row], folder: Path, name: str, found: int, seed: int) -> Row:
    images = np.arange(30, dtype=np.int32)
    matched = np.where(images < found, 10, 0).astype(np.int8)
    outcomes = Outcomes(images, matched, np.zeros(30, np.int8), images)
    path = folder / f"{name}-{seed}.parquet"
    write_outcomes(path, IMAGES, {"plane": outcomes})
    ap = resampled_aps(outcomes, np.ones((1, 30), np.int32))[0, 0]
    row = make_row(name, outcomes=path, recipe={"seed": seed})
    scores = {"AP50": ap, "AP75": ap, "mAP": ap}
    return replace(row, metrics=row.metrics.model_copy(update=scores))
