"""Converts labels as they are written to the rotated boxes that a training learns."""

from __future__ import annotations

from typing import Any

import cv2
import torch
from mmrotate.datasets.transforms import ConvertBoxType
from mmrotate.registry import TRANSFORMS
from mmrotate.structures import RotatedBoxes

from tiltbox.geometry.boxes import qbox_to_rbox


@TRANSFORMS.register_module()
class QuadsToRboxes(ConvertBoxType):
    """mmrotate's conversion of labels, or our own if OpenCV's smallest rectangle fails.

    OpenCV fails for extremely thin quads, with an error that names neither file nor line.
    """

    def __init__(self) -> None:
        super().__init__({"gt_bboxes": "rbox"})

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        try:
            return super().transform(results)
        except cv2.error:
            rboxes = qbox_to_rbox(results["gt_bboxes"].tensor.numpy())
            return results | {"gt_bboxes": RotatedBoxes(torch.from_numpy(rboxes).float())}
