"""Which priors learn which object, for detectors that start from random weights.

RTMDet's own assigner gives an object more priors the better predictions overlap it, and only priors inside
the object. Early on nothing overlaps, so every object has one, and a ship seven pixels wide contains hardly
any at a stride of eight: training from scratch starves. This assigner gives every object all priors near it,
up to a number, from the first step, and also searches around thin objects.
"""

from __future__ import annotations

import torch
from mmengine.structures import InstanceData
from mmrotate.registry import TASK_UTILS
from torch import Tensor

from tiltbox.geometry.rotated import pairwise_iou
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner  # noqa: E402


@TASK_UTILS.register_module()
class TaskAlignedRotatedAssigner(BaseAssigner):
    """Each object takes the priors with predictions that are sure of its class and near its box.

    The alignment of a prior with an object is ``score ** alpha * IoU ** beta`` (TOOD, arXiv:2108.07755), with
    the rotated IoU. An object takes the ``topk`` best aligned of its candidates, which are the priors inside
    its box; the box counts as at least ``least_side`` pixels long and wide. Among equals the nearest to its
    centre is taken. A prior that more than one object wants goes to the one it overlaps most. The target
    score of a prior is its alignment, scaled so that the target of an object's best prior is its IoU.

    Args:
        topk: The number of priors of an object.
        least_side: Side in pixels of the network's input.
        alpha, beta: Weights of score and IoU.
    """

    def __init__(self, topk: int, least_side: float, alpha: float = 0.5, beta: float = 6.0) -> None:
        self.topk, self.least_side, self.alpha, self.beta = topk, least_side, alpha, beta

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **_: object,
    ) -> AssignResult:
        """The object of each prior, counted from 1, or 0 for none.

        Args:
            pred_instances: ``priors`` (n, 4) as x, y, stride, stride; ``bboxes`` (n, 5) as rboxes; ``scores``
                (n, classes) before the sigmoid. Pixels of the network's input.
            gt_instances: ``bboxes``, m rotated boxes, and ``labels`` (m,).
        """
        priors, labels = pred_instances.priors, gt_instances.labels
        truth = gt_instances.bboxes.tensor
        near, rows = self._candidates(priors, truth)
        owner = priors.new_zeros(len(priors), dtype=torch.long)
        target = priors.new_zeros(len(priors))
        classes = torch.full_like(owner, -1)
        if len(rows):
            ious = pairwise_iou(pred_instances.bboxes[rows].detach().float(), truth.float())
            scores = pred_instances.scores[rows].detach().float().sigmoid()[:, labels]
            alignment = scores**self.alpha * ious**self.beta
            distance = _distance(priors[rows], truth)
            chosen = self._chosen(alignment, distance, near[rows])
            taken, best = _most_overlapped(chosen, ious)
            rows, best = rows[taken], best[taken]
            own = torch.zeros_like(chosen[taken]).scatter_(1, best[:, None], True)
            owner[rows], classes[rows] = best + 1, labels[best]
            target[rows] = _scaled(alignment[taken] * own, ious[taken] * own).gather(1, best[:, None])[:, 0]
        return AssignResult(len(truth), owner, target, labels=classes)

    def _candidates(self, priors: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each prior is a candidate for each object (n, m), and the rows of all candidates."""
        offset = priors[:, None, :2] - truth[None, :, :2]
        cos, sin = truth[:, 4].cos(), truth[:, 4].sin()
        along = offset[..., 0] * cos + offset[..., 1] * sin
        across = offset[..., 1] * cos - offset[..., 0] * sin
        half = truth[:, 2:4].clamp(min=self.least_side) / 2
        near = (along.abs() < half[:, 0]) & (across.abs() < half[:, 1])
        return near, near.any(dim=1).nonzero()[:, 0]

    def _chosen(self, alignment: Tensor, distance: Tensor, near: Tensor) -> Tensor:
        """The ``topk`` candidates of each object, (n, m)."""
        # Far below any alignment that matters, so it decides only when all are 0: in the first steps.
        preference = alignment + 1e-9 * 10**-distance
        count = min(self.topk, len(alignment))
        best = preference.where(near, -torch.ones_like(preference)).topk(count, dim=0).indices
        return torch.zeros_like(near).scatter_(0, best, True) & near


def _distance(priors: Tensor, truth: Tensor) -> Tensor:
    """From each prior to each object's centre, in strides: (n, m)."""
    offset = priors[:, None, :2] - truth[None, :, :2]
    return offset.norm(dim=2) / priors[:, 2:3]


def _most_overlapped(chosen: Tensor, ious: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that any object chose, and for all rows the object of those that they overlap most."""
    return chosen.any(dim=1), ious.where(chosen, -torch.ones_like(ious)).argmax(dim=1)


def _scaled(alignment: Tensor, ious: Tensor) -> Tensor:
    """Alignments (n, m) times a factor per object, so that the largest equals its largest IoU."""
    largest = alignment.amax(dim=0).clamp(min=torch.finfo(alignment.dtype).tiny)
    return alignment / largest * ious.amax(dim=0)
