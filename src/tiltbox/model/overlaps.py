"""The rotated IoU of :mod:`tiltbox.geometry.rotated`, as mmdet's assigner and losses expect it."""

from __future__ import annotations

from mmrotate.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from tiltbox.geometry.rotated import aligned_iou, pairwise_iou


@TASK_UTILS.register_module()
class RotatedOverlaps:
    """IoU of predicted with true boxes for the assigner: (n, 5) and m rotated boxes to (n, m)."""

    def __call__(self, predicted: Tensor, truth, mode: str = "iou", is_aligned: bool = False) -> Tensor:
        assert mode == "iou" and not is_aligned, "the assigner asks for the plain matrix"
        return pairwise_iou(_tensor(predicted).detach(), _tensor(truth))


@MODELS.register_module()
class LinearRotatedIoULoss(nn.Module):
    """Weighted sum of 1 - IoU over pairs of boxes, (n, 5) each.

    Args:
        loss_weight: Factor on the sum.
    """

    FLOOR = 1e-6  # IoUs are clamped to this from below, as in mmrotate's RotatedIoULoss

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
        # In float64 whatever the forward pass ran in: where edges almost coincide, the gradient divides
        # small differences of coordinates, and in float32 rounding turns these into slopes of thousands.
        ious = aligned_iou(predicted.double(), target.double()).clamp(min=self.FLOOR).to(weight.dtype)
        return self.loss_weight * ((1 - ious) * weight).sum() / avg_factor


def _tensor(boxes) -> Tensor:
    return getattr(boxes, "tensor", boxes)
