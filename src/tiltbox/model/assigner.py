"""Which priors learn which object.

All images of a step are matched together: a GPU then waits for the processor four times a step, rather than
several times for every object.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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


class Block(NamedTuple):
    """Some objects of an image, in rows, and the image's candidates, in columns.

    ``priors`` is (v, 4), ``scores`` (v, classes) before the sigmoid; ``objects`` are the m rows, of which the
    first is number ``first`` of the image; ``ious`` (m, v) are those of predicted boxes with them.
    """

    priors: Tensor
    scores: Tensor
    objects: Objects
    first: int
    ious: Tensor


class Owners:
    """For each of v candidates, the object with the greatest value so far and the IoU with it."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.values = torch.full((count,), -torch.inf, device=device)
        self.objects = torch.full((count,), -1, device=device)
        self.ious = torch.zeros(count, device=device)

    def offer(self, values: Tensor, block: Block) -> None:
        """Take objects whose values (m, v) are greater; among equals, the first stays."""
        best, rows = values.max(dim=0)
        greater = best > self.values
        self.values = best.where(greater, self.values)
        self.objects = (rows + block.first).where(greater, self.objects)
        self.ious = block.ious.gather(0, rows[None])[0].where(greater, self.ious)


class Assigner:
    """What assigners have in common: objects choose among candidates, the priors that are near an object.

    Tables of objects and candidates are computed in blocks: on a CPU such as fit into its caches, on a GPU
    such as fit into its memory.
    """

    ON_CPU, ON_GPU = 2**17, 2**25  # numbers in a table

    def match(self, scores: Tensor, boxes: Tensor, priors: Tensor, objects: Sequence[Objects]) -> Matches:
        """The priors of a step that learn an object.

        Args:
            scores: (b, n, classes) before the sigmoid.
            boxes: (b, n, 5), predicted rboxes in pixels of the network's input.
            priors: (n, 4) as x, y, stride, stride.
            objects: Those of each image.
        """
        with torch.no_grad():
            candidates = torch.stack([self._candidates(priors, each.boxes) for each in objects])
            image, rows = candidates.nonzero(as_tuple=True)
            counts = candidates.sum(dim=1).tolist()
            found = zip(
                priors[rows].split(counts),
                scores[image, rows].float().split(counts),
                boxes[image, rows].float().split(counts),
                objects,
                strict=True,
            )
            owners = self._owners(list(found))
            return _matches(image * len(priors) + rows, owners, objects)

    def _owners(self, images: list[_Image]) -> list[tuple[Tensor, Tensor]]:
        """The object of each candidate, -1 for none, and its quality, for each image."""
        choices = [self._choice(len(priors), priors.device) for priors, *_ in images]
        for group in self._groups(images):
            parts = [(images[at], rows) for at, rows in group]
            ious = pairwise_ious(
                [objects.boxes[rows].float() for (*_, objects), rows in parts],
                [boxes for (_, _, boxes, _), _ in parts],
            )
            for (at, rows), overlaps in zip(group, ious, strict=True):
                priors, scores, _, objects = images[at]
                some = Objects(objects.boxes[rows], objects.labels[rows])
                self._consider(Block(priors, scores, some, rows.start, overlaps), choices[at])
        return [
            self._decided(choice, scores, objects)
            for choice, (_, scores, _, objects) in zip(choices, images, strict=True)
        ]

    def _groups(self, images: list[_Image]) -> Iterator[list[tuple[int, slice]]]:
        """Images and rows of their objects, in groups that are computed at once."""
        most = self._most(images[0][0])
        group: list[tuple[int, slice]] = []
        room = most
        for at, (priors, _, _, objects) in enumerate(images):
            for rows in _slices(len(objects.labels), len(priors), most):
                size = (rows.stop - rows.start) * len(priors)
                if group and size > room:
                    yield group
                    group, room = [], most
                group.append((at, rows))
                room -= size
        if group:
            yield group

    def _candidates(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Whether each prior is near any object: (n,)."""
        near = torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
        for rows in _slices(len(boxes), len(priors), self._most(priors)):
            near |= self._near(priors, boxes[rows]).any(dim=0)
        return near

    def _most(self, tensor: Tensor) -> int:
        return self.ON_CPU if tensor.is_cpu else self.ON_GPU

    def _near(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Whether each prior is in the neighbourhood of each object: (m, n)."""
        raise NotImplementedError

    def _choice(self, count: int, device: torch.device) -> Any:
        """What is to be remembered of so many candidates while blocks are considered."""
        raise NotImplementedError

    def _consider(self, block: Block, choice: Any) -> None:
        """Let the objects of a block choose."""
        raise NotImplementedError

    def _decided(self, choice: Any, scores: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
        """The object of each candidate, -1 for none, and the score that it should give: both (v,)."""
        raise NotImplementedError


_Image = tuple[Tensor, Tensor, Tensor, Objects]  # candidates' priors, scores and boxes; objects


def _slices(rows: int, columns: int, most: int) -> Iterator[slice]:
    """Rows of a table in parts of at most ``most`` numbers, but at least one row."""
    step = max(1, most // max(columns, 1))
    for start in range(0, rows if columns else 0, step):
        yield slice(start, min(start + step, rows))


def _matches(places: Tensor, owners: list[tuple[Tensor, Tensor]], objects: Sequence[Objects]) -> Matches:
    """Matches by candidates at these places, counted through all images."""
    before = itertools.accumulate((len(each.labels) for each in objects), initial=0)
    shifted = [
        owner.where(owner < 0, owner + first) for (owner, _), first in zip(owners, before, strict=False)
    ]
    owner = torch.cat(shifted)
    taken = (owner >= 0).nonzero()[:, 0]
    return Matches(places[taken], owner[taken], torch.cat([quality for _, quality in owners])[taken])


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

    def _near(self, priors: Tensor, boxes: Tensor) -> Tensor:
        along, across = _seen_from(boxes, priors)
        half = boxes[:, 2:4, None] / 2 - self.BORDER
        return (along.abs() <= half[:, 0]) & (across.abs() <= half[:, 1])

    def _choice(self, count: int, device: torch.device) -> tuple[Owners, Owners, Tensor]:
        """Of each candidate: the object of least cost, one that chose it, and how many did."""
        return Owners(count, device), Owners(count, device), torch.zeros(count, device=device)

    def _consider(self, block: Block, choice: tuple[Owners, Owners, Tensor]) -> None:
        cheapest, choosing, times = choice
        cost = self._cost(block)
        most = min(self.topk, cost.shape[1])
        wanted = block.ious.topk(most, dim=1).values.sum(dim=1, keepdim=True).int().clamp(min=1)
        least = cost.topk(most, dim=1, largest=False).indices
        within = torch.arange(most, device=cost.device) < wanted
        chosen = torch.zeros_like(cost).scatter_(1, least, within.float())
        times += chosen.sum(dim=0)
        cheapest.offer(-cost, block)
        choosing.offer(chosen.log(), block)  # 0 if chosen

    def _decided(
        self, choice: tuple[Owners, Owners, Tensor], scores: Tensor, objects: Objects
    ) -> tuple[Tensor, Tensor]:
        cheapest, choosing, times = choice
        several = times > 1
        return (
            cheapest.objects.where(several, choosing.objects),
            cheapest.ious.where(several, choosing.ious),
        )

    def _cost(self, block: Block) -> Tensor:
        distance = _distance(block.priors, block.objects.boxes)
        return (
            _class_cost(block.scores, block.objects.labels, block.ious)
            - self.IOU_WEIGHT * (block.ious + self.FLOOR).log()
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

    def _near(self, priors: Tensor, boxes: Tensor) -> Tensor:
        along, across = _seen_from(boxes, priors)
        half = boxes[:, 2:4, None].clamp(min=self.least_side) / 2
        return (along.abs() < half[:, 0]) & (across.abs() < half[:, 1])

    def _choice(self, count: int, device: torch.device) -> Owners:
        return Owners(count, device)

    def _consider(self, block: Block, choice: Owners) -> None:
        near = self._near(block.priors, block.objects.boxes)
        alignment = self._alignment(block.scores.T[block.objects.labels], block.ious)
        # Far below any alignment that matters, so it decides only when all are 0: in the first steps.
        preference = alignment + 1e-9 * 10 ** -_distance(block.priors, block.objects.boxes)
        most = min(self.topk, alignment.shape[1])
        best = preference.where(near, -1).topk(most, dim=1).indices
        chosen = torch.zeros_like(near).scatter_(1, best, True) & near
        choice.offer(block.ious.where(chosen, -torch.inf), block)

    def _decided(self, choice: Owners, scores: Tensor, objects: Objects) -> tuple[Tensor, Tensor]:
        taken = choice.objects >= 0
        if not len(objects.labels):
            return choice.objects, choice.ious
        owner = choice.objects.clamp(min=0)
        ious = choice.ious * taken
        own = scores.gather(1, objects.labels[owner][:, None])[:, 0]
        alignment = self._alignment(own, ious) * taken
        most = torch.zeros(2, len(objects.labels), device=ious.device)
        most.scatter_reduce_(1, owner.expand(2, -1), torch.stack([alignment, ious]), "amax")
        largest, sure = most[:, owner]
        return choice.objects, alignment / largest.clamp(min=torch.finfo(largest.dtype).tiny) * sure

    def _alignment(self, scores: Tensor, ious: Tensor) -> Tensor:
        return scores.sigmoid() ** self.alpha * ious**self.beta


def _seen_from(boxes: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Places of priors along and across each box, from its centre, in pixels: (m, n) each."""
    x, y = (priors[None, :, axis] - boxes[:, None, axis] for axis in (0, 1))
    cos, sin = boxes[:, 4, None].cos(), boxes[:, 4, None].sin()
    return x * cos + y * sin, y * cos - x * sin


def _distance(priors: Tensor, boxes: Tensor) -> Tensor:
    """From each object's centre to each prior, in its strides: (m, n)."""
    x, y = (priors[None, :, axis] - boxes[:, None, axis] for axis in (0, 1))
    return (x.square() + y.square()).sqrt() / priors[:, 2]


def _class_cost(scores: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    """Focused cross-entropy, summed over classes, if a prior learned an object: (v, classes) to (m, v).

    Classes other than the object's cost the same whatever the object; so one sum for each prior is enough.
    """
    scores = scores.T
    sure, surprise = scores.sigmoid(), functional.softplus(scores)
    each = surprise * sure.square()
    elsewhere = each.sum(dim=0) - each
    own = surprise[labels] - scores[labels] * ious
    return elsewhere[labels] + own * (ious - sure[labels]).square()
