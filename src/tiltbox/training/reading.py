"""mmdet's transforms for reading patches, with tiltbox's reader, and without steps that change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import Pad, Resize
from mmrotate.registry import TRANSFORMS

from tiltbox.training.kept_pixels import pixels_of


@TRANSFORMS.register_module()
class ReadPatch(BaseTransform):
    """``img``, uint8 (h, w, 3) as BGR, and its shape: as kept, or decoded in half of OpenCV's time."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image = pixels_of(Path(results["img_path"]))
        return results | {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


@TRANSFORMS.register_module()
class ResizePatch(Resize):
    """Resizes to a square's side, but only images of another size; OpenCV would copy the others."""

    def _resize_img(self, results: dict[str, Any]) -> None:
        if {max(results["img"].shape[:2])} != set(results["scale"]):
            super()._resize_img(results)
            return
        results |= {"scale_factor": (1.0, 1.0), "keep_ratio": True}


@TRANSFORMS.register_module()
class PadPatch(Pad):
    """Pads only images of another size."""

    def _pad_img(self, results: dict[str, Any]) -> None:
        shape = results["img"].shape
        if self.size != shape[1::-1]:
            super()._pad_img(results)
            return
        results |= {"pad_shape": shape, "pad_fixed_size": self.size, "pad_size_divisor": None}
