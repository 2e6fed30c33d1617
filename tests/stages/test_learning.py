"""The recipe for small data learns, and learns angles: from random weights, within seconds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import OTHERS, find_schedule
from tiltbox.stages.evaluate import evaluate
from tiltbox.stages.merge import merge
from tiltbox.stages.predict import predict
from tiltbox.stages.split import split
from tiltbox.stages.train import train

SIDE, CLASSES = 64, ("ship",)
pytestmark = pytest.mark.usefixtures("in_this_process")
NARROW = find_variant("yoloms-xs-previous").model_copy(update={"width": 0.2})
SCHEDULE = find_schedule("small-cpu").model_copy(
    update={"epochs": {OTHERS: 24}, "image_size": SIDE, "workers": 0}
)


def draw(folder, count: int, seed: int) -> None:
    """Bright bars of 26 x 8 pixels, at any angle, two in each dark image."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image = rng.normal(60, 12, (SIDE, SIDE, 3))
        lines = []
        for x in (SIDE / 4, 3 * SIDE / 4):
            centre = (float(x), float(rng.uniform(18, SIDE - 18)))
            quad = cv2.boxPoints((centre, (26.0, 8.0), float(rng.uniform(0, 180))))
            cv2.fillPoly(image, [np.round(quad * 16).astype(int)], (200, 190, 180), cv2.LINE_AA, 4)
            lines.append(" ".join(f"{value:.2f}" for value in quad.ravel()) + " ship 0\n")
        cv2.imwrite(str(folder / "images" / f"{number}.png"), image.clip(0, 255).astype(np.uint8))
        (folder / "labelTxt" / f"{number}.txt").write_text("".join(lines))


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    for seed, (name, count) in enumerate((("train", 40), ("val", 20))):
        draw(folder / name, count, seed)
        split([folder / name], folder / "patches" / name, size=SIDE, overlap=0, workers=1, classes=CLASSES)
    return folder


def test_it_learns(bars):
    """Without a gradient for the angle, the median error is 10 degrees."""
    train("narrow", NARROW, SCHEDULE, bars / "patches/train", bars / "train-out", classes=CLASSES, gpus=0)
    predict(
        "narrow",
        NARROW,
        bars / "train-out/checkpoint.pth",
        bars / "patches/val",
        bars / "detections.parquet",
        classes=CLASSES,
        gpus=0,
        threads=1,
    )
    merge(bars / "detections.parquet", bars / "merged", classes=CLASSES)
    metrics = evaluate(bars / "merged", bars / "val/labelTxt", bars / "metrics.json", classes=CLASSES)
    assert metrics["objects"] == 40
    assert metrics["AP50"] > 0.8
    assert metrics["angle_error"]["median"] < 5
