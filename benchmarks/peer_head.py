"""tiltbox's head as mmrotate would run it: mmrotate's targets and losses, mmdet's assigner and focal loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tiltbox.geometry.rotated import pairwise_iou
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.models.losses import QualityFocalLoss  # noqa: E402
from mmdet.models.task_modules.assigners import DynamicSoftLabelAssigner  # noqa: E402
from mmdet.models.task_modules.samplers import PseudoSampler  # noqa: E402
from mmengine.registry import TASK_UTILS  # noqa: E402
from mmrotate.models.dense_heads.rotated_rtmdet_head import RotatedRTMDetSepBNHead  # noqa: E402


@TASK_UTILS.register_module(force=True)  # tests load this file more than once
class PairwiseOverlaps:
    """tiltbox's rotated IoU in place of mmcv's, which has to be compiled."""

    def __call__(self, predicted: Tensor, truth: Any, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        return pairwise_iou(predicted.detach(), truth.tensor)


class BoxLoss(nn.Module):
    """tiltbox's loss of boxes, level by level as mmrotate calls it."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
        return self.loss(predicted, target, weight) / avg_factor


def as_in_mmrotate(head: nn.Module) -> None:
    """Change a head in place; its layers and weights stay."""
    for name in ("forward", "loss_by_feat"):
        setattr(head, name, getattr(RotatedRTMDetSepBNHead, name).__get__(head))
    head.loss_cls = QualityFocalLoss(use_sigmoid=True, beta=head.loss_cls.focus)
    head.loss_bbox = BoxLoss(head.loss_bbox)
    head.assigner = DynamicSoftLabelAssigner(topk=13, iou_calculator={"type": "PairwiseOverlaps"})
    head.sampler = PseudoSampler()
    head.train_cfg = {"allowed_border": -1, "pos_weight": -1}
