"""The rotated IoU of :mod:`tiltbox.geometry.rotated`, as mmdet's assigner and losses expect it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mmrotate.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from tiltbox.geometry.rotated import aligned_iou, pairwise_iou

if TYPE_CHECKING:
    from mmdet.structures.bbox import BaseBoxes


@TASK_UTILS.register_module()
class RotatedOverlaps:
    """IoU of predicted with true boxes for the assigner: (n, 5) and m rotated boxes to (n, m)."""

    def __call__(
        self,
        predicted: Tensor | BaseBoxes,
        truth: Tensor | BaseBoxes,
        mode: str = "iou",
        is_aligned: bool = False,
    ) -> Tensor:
        assert mode == "iou" and not is_aligned, "the assigner asks for the plain matrix"
        return pairwise_iou(_tensor(predicted).detach(), _tensor(truth))


@MODELS.register_module()
class LinearRotatedIoULoss(nn.Module):
    """Weighted sum of 1 - IoU over pairs of boxes, (n, 5) each, and of a term for the angle alone.

    Args:
        loss_weight: Factor on the sum of 1 - IoU.
        angle_weight: Factor on the sum of :func:`angle_distance`.
    """

    FLOOR = 1e-6  # lower bound to which IoUs are clamped, as in mmrotate's RotatedIoULoss

    def __init__(self, loss_weight: float, angle_weight: float = 0.0) -> None:
        super().__init__()
        self.loss_weight, self.angle_weight = loss_weight, angle_weight

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
        # Always in float64: where edges almost coincide, the gradient divides by small differences of
        # coordinates, and in float32 rounding turns these into slopes of thousands.
        ious = aligned_iou(predicted.double(), target.double()).clamp(min=self.FLOOR).to(weight.dtype)
        loss = self.loss_weight * ((1 - ious) * weight).sum() / avg_factor
        if self.angle_weight:
            turned = angle_distance(predicted, target)
            loss = loss + self.angle_weight * (turned * weight).sum() / avg_factor
        return loss


def angle_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """How far the w-axes of boxes point from those of their targets, by rows: (n, 5) and (n, 5) to (n,).

    It is 0 for the same direction and 1 at a right angle: the magnitude of the sine, which has a period of
    180 degrees and does not jump. Unlike the IoU it has a slope where the predicted box is still square. A
    target counts fully if its width is at least 1.5 times its height, and less the closer it is to a square,
    which has no direction and does not count. ``target`` must be le90: its width is its long side, so a
    predicted box learns to have its long side as its width, too.

    >>> ship = torch.tensor([[0.0, 0.0, 30.0, 10.0, 0.0]])
    >>> angle_distance(ship + torch.tensor([0.0, 0.0, 0.0, 0.0, torch.pi / 6]), ship).item()
    0.5
    """
    sine = (predicted[:, 4] - target[:, 4]).sin()
    aspect = target[:, 2] / target[:, 3].clamp(min=torch.finfo(target.dtype).eps)
    return sine.abs() * (2 * (aspect - 1)).clamp(0, 1)


def _tensor(boxes: Tensor | BaseBoxes) -> Tensor:
    return getattr(boxes, "tensor", boxes)
