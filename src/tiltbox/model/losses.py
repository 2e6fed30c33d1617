"""What detectors minimise: cross-entropy with the IoU as its target, rotated IoU, distance of angles."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from tiltbox.geometry.rotated import aligned_iou


@MODELS.register_module()
class FocusedCrossEntropy(nn.Module):
    """Sum of binary cross-entropies times ``|target - prediction| ** focus``: quality focal loss.

    The target of a prior's class is the quality of its box, as of arXiv:2006.04388; that of all others is 0.

    Args:
        focus: 0 gives plain cross-entropy.
        use_sigmoid: Always true; mmdet's heads look for it.
    """

    def __init__(self, focus: float, use_sigmoid: bool = True) -> None:
        super().__init__()
        self.focus = focus

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """The loss of (n, classes) before the sigmoid, with targets from 0 to 1."""
        if not self.focus:
            return functional.binary_cross_entropy_with_logits(predicted, target, reduction="sum")
        loss = functional.binary_cross_entropy_with_logits(predicted, target, reduction="none")
        return (loss * (target - predicted.sigmoid()).abs().pow(self.focus)).sum()


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

    def forward(self, predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        # Always in float64: where edges almost coincide, the gradient divides by small differences of
        # coordinates, and in float32 rounding turns these into slopes of thousands.
        ious = aligned_iou(predicted.double(), target.double()).clamp(min=self.FLOOR).to(weight.dtype)
        loss = self.loss_weight * ((1 - ious) * weight).sum()
        if self.angle_weight:
            loss = loss + self.angle_weight * (angle_distance(predicted, target) * weight).sum()
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
