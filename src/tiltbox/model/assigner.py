"""Which priors learn which object.

All images of a step are matched together: a GPU then waits for the processor three times a step, rather than
several times for every object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.registry import TASK_UTILS
from torch import Tensor
from torch.nn import functional

from tiltbox.geometry.rotated import pairwise_ious


class Objects(NamedTuple):
    """The true objects of an image.

    ``boxes`` are rboxes (m, 5) in pixels of the network's input, ``labels`` (m,) classes from 0.
    """

    boxes: Tensor
    labels: Tensor


class Matches(NamedTuple):
    """The priors of a step that learn an object, one row for each.

    ``priors`` counts through all images, ``objects`` through the objects of all images; ``quality`` (0 to 1)
    is the score that the prior should give.
    """

    priors: Tensor
    objects: Tensor
    quality: Tensor


class _Candidates(NamedTuple):
    """Some priors (v, 4) of an image with their scores (v, classes) before the sigmoid, and its objects.

    ``near`` and ``ious`` are (v, m): whether a prior is in the neighbourhood of an object, and the IoU of its
    predicted box with the object.
    """

    priors: Tensor
    scores: Tensor
    objects: Objects
    near: Tensor
    ious: Tensor


class Assigner:
    """What assigners have in common: they choose among the priors that are near an object."""

    def match(self, scores: Tensor, boxes: Tensor, priors: Tensor, objects: Sequence[Objects]) -> Matches:
        """The priors of a step that learn an object.

        Args:
            scores: (b, n, classes) before the sigmoid.
            boxes: (b, n, 5), predicted rboxes in pixels of the network's input.
            priors: (n, 4) as x, y, stride, stride.
            objects: Those of each image.
        """
        with torch.no_grad():
            near = [self._near(priors, each) for each in objects]
            candidates = torch.stack([each.any(dim=1) for each in near])
            image, rows = candidates.nonzero(as_tuple=True)
            counts = candidates.sum(dim=1).tolist()
            ious = pairwise_ious(
                boxes[image, rows].float().split(counts), [each.boxes.float() for each in objects]
            )
            images = [
                _Candidates(priors[kept], found, true, close[kept], overlaps)
                for kept, found, true, close, overlaps in zip(
                    rows.split(counts),
                    scores[image, rows].float().split(counts),
                    *(objects, near, ious),
                    strict=True,
                )
            ]
            return self._matches(image * len(priors) + rows, images)

    def _matches(self, places: Tensor, images: list[_Candidates]) -> Matches:
        """Matches by candidates at these places, counted through all images."""
        before = 0
        owners, qualities = [places.new_empty(0)], [places.new_empty(0, dtype=torch.float32)]
        for each in images:
            if each.ious.numel():
                owner, quality = self._owners(each)
                owners.append(owner.where(owner < 0, owner + before))
                qualities.append(quality)
            before += len(each.objects.labels)
        owner = torch.cat(owners)
        taken = (owner >= 0).nonzero()[:, 0]
        return Matches(places[taken], owner[taken], torch.cat(qualities)[taken])

    def _near(self, priors: Tensor, objects: Objects) -> Tensor:
        """Whether each prior is in the neighbourhood of each object: (n, m)."""
        raise NotImplementedError

    def _owners(self, found: _Candidates) -> tuple[Tensor, Tensor]:
        """The object of each candidate, -1 for none, and the score that it should give: both (v,)."""
        raise NotImplementedError


@TASK_UTILS.register_module()
class DynamicSoftLabel(Assigner):
    """RTMDet's own (arXiv:2212.07784): an object gets more priors, the better predictions overlap it.

    Candidates are the priors inside any object. Each object takes those of least cost, as many as the
    ``topk`` best IoUs add up to, but at least one. A prior that several objects want goes to the object of
    least cost. It should give the IoU of its box as its score.
    """

    BORDER = 0.01  # pixels; a prior on an object's edge is outside
    IOU_WEIGHT, CENTRE_RADIUS = 3.0, 3.0
    FLOOR = 1e-7

    def __init__(self, topk: int) -> None:
        self.topk = topk

    def _near(self, priors: Tensor, objects: Objects) -> Tensor:
        along, across = _seen_from(objects.boxes, priors)
        half = objects.boxes[:, 2:4] / 2 - self.BORDER
        return (along.abs() <= half[:, 0]) & (across.abs() <= half[:, 1])

    def _owners(self, found: _Candidates) -> tuple[Tensor, Tensor]:
        cost = self._cost(found)
        most = min(self.topk, len(cost))
        wanted = found.ious.topk(most, dim=0).values.sum(dim=0).int().clamp(min=1)
        least = cost.topk(most, dim=0, largest=False).indices
        within = torch.arange(most, device=cost.device)[:, None] < wanted
        chosen = torch.zeros_like(found.near).scatter_(0, least, within)
        several = chosen.sum(dim=1) > 1
        owner = cost.argmin(dim=1).where(several, chosen.byte().argmax(dim=1))
        quality = found.ious.gather(1, owner[:, None])[:, 0]
        return owner.where(chosen.any(dim=1), -1), quality

    def _cost(self, found: _Candidates) -> Tensor:
        distance = _distance(found.priors, found.objects.boxes)
        return (
            _class_cost(found.scores, found.objects.labels, found.ious)
            - self.IOU_WEIGHT * (found.ious + self.FLOOR).log()
            + torch.pow(10, distance - self.CENTRE_RADIUS)
        )


@TASK_UTILS.register_module()
class TaskAligned(Assigner):
    """Each object takes the priors with predictions that are sure of its class and near its box.

    It is for detectors that start from random weights. RTMDet's own assigner gives an object more priors, the
    better predictions overlap it, and only priors inside the object. Early on nothing overlaps, so every
    object has one, and a ship seven pixels wide contains hardly any at a stride of eight: training from
    scratch starves. This one gives every object all priors near it, up to a number, from the first step, and
    also searches around thin objects.

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

    def _near(self, priors: Tensor, objects: Objects) -> Tensor:
        along, across = _seen_from(objects.boxes, priors)
        half = objects.boxes[:, 2:4].clamp(min=self.least_side) / 2
        return (along.abs() < half[:, 0]) & (across.abs() < half[:, 1])

    def _owners(self, found: _Candidates) -> tuple[Tensor, Tensor]:
        scores = found.scores.sigmoid()[:, found.objects.labels]
        alignment = scores**self.alpha * found.ious**self.beta
        chosen = self._chosen(alignment, _distance(found.priors, found.objects.boxes), found.near)
        owner = found.ious.where(chosen, -1).argmax(dim=1)
        taken = chosen.any(dim=1)
        own = torch.zeros_like(chosen).scatter_(1, owner[:, None], taken[:, None])
        target = _scaled(alignment * own, found.ious * own).gather(1, owner[:, None])[:, 0]
        return owner.where(taken, -1), target

    def _chosen(self, alignment: Tensor, distance: Tensor, near: Tensor) -> Tensor:
        """The ``topk`` candidates of each object, (v, m)."""
        # Far below any alignment that matters, so it decides only when all are 0: in the first steps.
        preference = alignment + 1e-9 * 10**-distance
        count = min(self.topk, len(alignment))
        best = preference.where(near, -1).topk(count, dim=0).indices
        return torch.zeros_like(near).scatter_(0, best, True) & near


def _seen_from(boxes: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Places of priors along and across each box, from its centre, in pixels: (n, m) each."""
    offset = priors[:, None, :2] - boxes[None, :, :2]
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    return offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin


def _distance(priors: Tensor, boxes: Tensor) -> Tensor:
    """From each prior to each object's centre, in strides: (n, m)."""
    offset = priors[:, None, :2] - boxes[None, :, :2]
    return offset.norm(dim=2) / priors[:, 2:3]


def _class_cost(scores: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    """Focused cross-entropy, summed over classes, if a prior learned an object: (v, classes) to (v, m).

    Classes other than the object's cost the same whatever the object; so one sum for each prior is enough.
    """
    sure, surprise = scores.sigmoid(), functional.softplus(scores)
    elsewhere = surprise * sure.square()
    sure, surprise, own = sure[:, labels], surprise[:, labels], elsewhere[:, labels]
    here = (surprise - scores[:, labels] * ious) * (ious - sure).square()
    return elsewhere.sum(dim=1, keepdim=True) - own + here


def _scaled(alignment: Tensor, ious: Tensor) -> Tensor:
    """Alignments (n, m) times a factor per object, so that the largest equals its largest IoU."""
    largest = alignment.amax(dim=0).clamp(min=torch.finfo(alignment.dtype).tiny)
    return alignment / largest * ious.amax(dim=0)
