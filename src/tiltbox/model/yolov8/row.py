"""A row of the family ``yolov8``, and the detector that it describes.

Both kinds have the same head and the same losses, so that they differ in backbone and neck alone.
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar, Literal

from pydantic import Field

from tiltbox.model.variant import Config, Parts, Variant, separable_head

RGB: Config = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0), "bgr_to_rgb": True}
HEAD_CHANNELS = 64  # as in the box branch of YOLOv8-N


class YOLOv8(Variant):
    """Everything in which one YOLOv8 differs from the others."""

    STARTED: ClassVar = ("backbone", "neck")  # the head of upright boxes is another one

    family: Literal["yolov8"]
    block: Literal["c2f", "ms"]
    channels: tuple[int, int, int, int, int] = Field(
        description="after the stem and after each stage, at width 1"
    )
    width: float = Field(gt=0, description="factor on them; the result is rounded up to a multiple of 8")
    depth: float = Field(gt=0, description="factor on the number of layers of each block")

    def parts(self, num_classes: int) -> Parts:
        channels = [ceil(number * self.width / 8) * 8 for number in self.channels]
        common = {"channels": channels, "block": self.block, "depth": self.depth}
        return Parts(
            backbone={"type": "tiltbox.model.yolov8.backbone.YOLOv8Backbone", **common},
            neck={"type": "tiltbox.model.yolov8.neck.YOLOv8Neck", **common},
            head=separable_head(
                num_classes,
                HEAD_CHANNELS,
                type="tiltbox.model.yolov8.head.PerLevelHead",
                level_channels=channels[2:],
                share_conv=False,
                norm_cfg={"type": "BN", "momentum": 0.03, "eps": 0.001},
            ),
            pixels=RGB,
        )
