"""Patches as training reads them: pixels and boxes of mmdet's own pipeline, in half the time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmcv.transforms import Compose  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

from tiltbox.settings.schedules import find_schedule  # noqa: E402
from tiltbox.training import mosaic, quads, reading  # noqa: E402, F401  (registers)
from tiltbox.training.pipeline import train_pipeline  # noqa: E402
from tiltbox.training.randomness import seed_all  # noqa: E402

OURS = {"ReadPatch": "mmdet.LoadImageFromFile", "ResizePatch": "mmdet.Resize", "PadPatch": "mmdet.Pad"}


@pytest.mark.parametrize("shape", [(1024, 1024), (200, 200), (128, 128), (300, 200), (1024, 700)])
@pytest.mark.parametrize("size", [128, 1024])
def test_images_and_boxes_are_those_of_mmdet(tmp_path, shape, size):
    draw = np.random.default_rng(0)
    path = tmp_path / "patch.png"
    cv2.imwrite(str(path), draw.integers(0, 256, (*shape, 3), dtype=np.uint8))
    box = [20.0, 20, 90, 30, 85, 60, 15, 50]
    record = {
        "img_id": "patch",
        "img_path": str(path),
        "instances": [{"bbox": box, "bbox_label": 3, "ignore_flag": 0}],
    }
    ours = train_pipeline(find_schedule("dota-cpu").model_copy(update={"image_size": size}), DOTA_V1_CLASSES)
    theirs = [step | {"type": OURS.get(step["type"], step["type"])} for step in ours]
    with DefaultScope.overwrite_default_scope("mmrotate"):
        pipelines = Compose(ours), Compose(theirs)
    for seed in range(4):  # flips and rotations
        results = []
        for pipeline in pipelines:
            seed_all(0, 0, seed)
            results.append(pipeline(record))
        found, expected = results
        assert (found["inputs"] == expected["inputs"]).all()
        for one, other in zip(*(each["data_samples"].gt_instances for each in results), strict=True):
            assert (one.bboxes.tensor == other.bboxes.tensor).all() and one.labels == other.labels
        assert found["data_samples"].metainfo == expected["data_samples"].metainfo
