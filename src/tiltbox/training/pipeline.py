"""How training images are read and augmented: transforms by the names that the training process knows.

Nothing here imports them: the command that starts a training would need seconds for it.
"""

from __future__ import annotations

from typing import Any

from tiltbox.model.detector import PAD_VALUE
from tiltbox.settings.schedules import Schedule

UPRIGHT = ("storage-tank", "roundabout")  # their boxes stay axis-parallel when the image is rotated


def train_pipeline(schedule: Schedule, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read, resize, compose, flip, rotate, pad and pack; Mosaic apart, as in mmdet and mmrotate."""
    size = (schedule.image_size, schedule.image_size)
    upright = [index for index, name in enumerate(classes) if name in UPRIGHT]
    read = [
        {"type": "ReadPatch"},
        {"type": "mmdet.LoadAnnotations", "with_bbox": True, "box_type": "qbox"},
        {"type": "QuadsToRboxes"},
        {"type": "ResizePatch", "scale": size, "keep_ratio": True},
    ]
    mosaic = {"type": "Mosaic", "size": schedule.image_size, "prob": schedule.mosaic, "read": read}
    return [
        *([mosaic] if schedule.mosaic else read),
        {
            "type": "mmdet.RandomFlip",
            "prob": schedule.flip,
            "direction": ["horizontal", "vertical", "diagonal"],
        },
        {
            "type": "RandomRotate",
            "prob": schedule.rotate,
            "angle_range": 180,
            "rect_obj_labels": upright,
        },
        {"type": "PadPatch", "size": size, "pad_val": {"img": (PAD_VALUE,) * 3}},
        {"type": "mmdet.PackDetInputs"},
    ]
