"""Rotated RTMDet's head, which all families use: targets, losses and decoding are mmrotate's.

Non-maximum suppression is tiltbox's own.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from tiltbox.geometry.rotated import rotated_nms
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmrotate.models.dense_heads.rotated_rtmdet_head import RotatedRTMDetSepBNHead  # noqa: E402


class RotatedHead(RotatedRTMDetSepBNHead):
    """With ``share_conv``, one set of convolutions for all levels; each level has its own batch norm."""

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        """Scale back to the patch if asked, then keep the best boxes after per-class NMS."""
        if rescale:
            assert img_meta is not None, "mmdet gives it"
            factors = [1 / factor for factor in img_meta["scale_factor"]]
            results.bboxes.rescale_(factors)
        if with_nms:
            kept = rotated_nms(
                results.bboxes.tensor, results.scores, results.labels, cfg["nms"]["iou_threshold"]
            )
            results = results[kept[: cfg["max_per_img"]]]
        return results
