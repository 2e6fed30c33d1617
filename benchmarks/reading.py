"""Reading and augmenting patches by mmdet and by tiltbox: ``python benchmarks/reading.py PATCHES``.

CPU time of one process, as one of a training's data loaders takes it; pixels and boxes are the same, which
tests/training/test_reading.py checks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from measure import machine, table

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.compat import import_openmmlab
from tiltbox.settings.schedules import find_schedule
from tiltbox.training.pipeline import train_pipeline

import_openmmlab()
from mmengine.registry import DefaultScope  # noqa: E402

from tiltbox.training import kept_pixels, quads  # noqa: E402, F401  (registers)
from tiltbox.training.data import PatchDataset  # noqa: E402
from tiltbox.training.randomness import seed_all  # noqa: E402

MMDETS = {"ReadPatch": "mmdet.LoadImageFromFile", "ResizePatch": "mmdet.Resize", "PadPatch": "mmdet.Pad"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("patches", type=Path, metavar="PATCHES", help="labelled patches from split")
    options.add_argument("--schedule", default="dota-1gpu")
    options.add_argument("--epochs", type=int, default=3)
    chosen = options.parse_args()
    cv2.setNumThreads(0)
    ours = train_pipeline(find_schedule(chosen.schedule), DOTA_V1_CLASSES)
    theirs = [step | {"type": MMDETS.get(step["type"], step["type"])} for step in ours]
    with DefaultScope.overwrite_default_scope("mmrotate"):
        found = {
            "mmdet": measured(chosen.patches, theirs, chosen.epochs),
            "tiltbox": measured(chosen.patches, ours, chosen.epochs),
        }
        with kept(chosen.patches):
            found["tiltbox, pixels kept"] = measured(chosen.patches, ours, chosen.epochs)
    names = dict.fromkeys(name for each in found.values() for name in each)
    rows = [[name, *(f"{each.get(name, 0):.2f}" for each in found.values())] for name in names]
    rows.append(["all", *(f"{sum(each.values()):.2f}" for each in found.values())])
    print(f"{machine('onedl-mmdetection', 'opencv-python-headless')}\n")
    print(table(["ms a patch", *found], rows))


def measured(patches: Path, pipeline: list[dict[str, Any]], epochs: int) -> dict[str, float]:
    """Milliseconds a patch of each transform."""
    data = PatchDataset(str(patches), DOTA_V1_CLASSES, pipeline=pipeline)
    seconds: dict[str, float] = defaultdict(float)
    for epoch in range(epochs + 1):  # the first one is not counted
        for index in range(len(data)):
            seed_all(0, epoch, index)
            results = data.get_data_info(index)
            for transform in data.pipeline.transforms:
                before = time.process_time()
                results = transform(results)
                seconds[kind(transform)] += (time.process_time() - before) * (epoch > 0)
    return {name: 1e3 * each / epochs / len(data) for name, each in seconds.items()}


def kind(transform: Any) -> str:
    """What it does, under one name for mmdet's transforms and tiltbox's."""
    name = type(transform).__name__
    return {"LoadImageFromFile": "ReadPatch", "Resize": "ResizePatch", "Pad": "PadPatch"}.get(name, name)


@contextmanager
def kept(patches: Path) -> Iterator[None]:
    """Patches as plain pixels in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[kept_pixels.VARIABLE] = folder
        try:
            kept_pixels.keep_pixels(patches)
            yield
        finally:
            del os.environ[kept_pixels.VARIABLE]


if __name__ == "__main__":
    main()
