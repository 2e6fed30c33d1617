"""Which priors learn which object.

All images of a step are matched together: a GPU then waits for the processor four times a step, rather than
several times for every object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.registry import TASK_UTILS
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from tiltbox.geometry.rotated import pairwise_iou


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


class Images(NamedTuple):
    """Some images of a step, padded to equal numbers of objects, m, and of candidates, v.

    Attributes:
        boxes, labels: Of objects, (g, m, 5) and (g, m).
        objects: Which of these are real, (g, m).
        rows: Which priors the candidates are, (g, v).
        real: Which of these are real, (g, v).
        priors: (g, v, 4).
        scores: (g, v, classes), before the sigmoid.
        predicted: Boxes (g, v, 5); those that are not real have no area.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    rows: Tensor
    real: Tensor
    priors: Tensor
    scores: Tensor
    predicted: Tensor


class Block(NamedTuple):
    """Some objects of each image, in rows, of which the first is number ``first``; candidates are columns.

    ``boxes`` (g, m, 5), ``labels`` (g, m); ``ious`` (g, m, v) are those with predictions; ``real`` (g, m, v)
    says which cells are neither of an object nor of a candidate that pads, None if none is.
    """

    boxes: Tensor
    labels: Tensor
    real: Tensor | None
    first: int
    ious: Tensor


class Owners:
    """For each candidate (g, v), the object with the greatest value so far and the IoU with it."""

    def __init__(self, images: Images) -> None:
        self.values = torch.full_like(images.real, -torch.inf, dtype=torch.float32)
        self.objects = torch.full_like(images.real, -1, dtype=torch.long)
        self.ious = torch.zeros_like(self.values)

    def offer(self, values: Tensor, block: Block) -> None:
        """Take objects whose values (g, m, v) are greater; among equals, the first stays."""
        best, rows = _where_real(values, block, -torch.inf).max(dim=1)
        greater = best > self.values
        self.values = best.where(greater, self.values)
        self.objects = (rows + block.first).where(greater, self.objects)
        self.ious = block.ious.gather(1, rows[:, None])[:, 0].where(greater, self.ious)


class Assigner:
    """What assigners have in common: objects choose among candidates, the priors that are near an object.

    On a GPU, images are matched together as far as their tables fit into its memory, since it takes longer to
    start an operation than to do it. On a CPU each is matched alone, in parts that fit into its caches.
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
        counts = [len(each.labels) for each in objects]
        found, first = [], 0
        with torch.no_grad():
            for some in self._groups(counts, priors):
                images = self._images(scores[some], boxes[some], priors, objects[some])
                matches = self._matches(images)
                before = some.start * len(priors), first
                found.append(_counted_from(matches, images, before, len(priors)))
                first += sum(counts[some])
        return Matches(*(torch.cat(each) for each in zip(*found, strict=True)))

    def _groups(self, counts: Sequence[int], priors: Tensor) -> Iterator[slice]:
        """Images that are matched together."""
        most = self._together(priors) // len(priors)
        start = 0
        for end in range(1, len(counts) + 1):
            if end == len(counts) or max(counts[start : end + 1]) * (end + 1 - start) > most:
                yield slice(start, end)
                start = end

    def _images(self, scores: Tensor, boxes: Tensor, priors: Tensor, objects: Sequence[Objects]) -> Images:
        truth = pad_sequence([each.boxes.float() for each in objects], batch_first=True)
        labels = pad_sequence([each.labels for each in objects], batch_first=True, padding_value=-1)
        there = labels >= 0
        near = self._candidates(priors, truth, there)
        rows, real = _gathered(near)
        predicted = boxes.gather(1, rows[..., None].expand(-1, -1, 5)).float() * real[..., None]
        seen = scores.gather(1, rows[..., None].expand(-1, -1, scores.shape[2])).float()
        return Images(truth, labels.clamp(min=0), there, rows, real, priors[rows], seen, predicted)

    def _candidates(self, priors: Tensor, boxes: Tensor, there: Tensor) -> Tensor:
        """Whether each prior is near any object: (g, n)."""
        images, objects = there.shape
        near = torch.zeros(images, len(priors), dtype=torch.bool, device=priors.device)
        for rows in _slices(objects, near.numel(), self._most(priors)):
            inside = self._near(priors, boxes[:, rows])
            near |= (inside & there[:, rows, None] if images > 1 else inside).any(dim=1)
        return near

    def _matches(self, images: Images) -> Matches:
        """As places in (g, v), objects of each image, and quality."""
        choice = self._choice(images)
        for rows in _slices(images.labels.shape[1], images.real.numel(), self._most(images.real)):
            boxes = images.boxes[:, rows]
            ious = pairwise_iou(boxes, images.predicted)
            real = images.objects[:, rows, None] & images.real[:, None] if len(images.real) > 1 else None
            self._consider(images, Block(boxes, images.labels[:, rows], real, rows.start, ious), choice)
        owner, quality = self._decided(images, choice)
        places = (images.real & (owner >= 0)).flatten().nonzero()[:, 0]
        return Matches(places, owner.flatten()[places], quality.flatten()[places])

    def _most(self, tensor: Tensor) -> int:
        return self.ON_CPU if tensor.is_cpu else self.ON_GPU

    def _together(self, tensor: Tensor) -> int:
        return 0 if tensor.is_cpu else self.ON_GPU

    def _near(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Whether each prior, (n, 4) or (g, n, 4), is in the neighbourhood of each object: (g, m, n)."""
        raise NotImplementedError

    def _choice(self, images: Images) -> Any:
        """What is to be remembered of the candidates while blocks are considered."""
        raise NotImplementedError

    def _consider(self, images: Images, block: Block, choice: Any) -> None:
        """Let the objects of a block choose."""
        raise NotImplementedError

    def _decided(self, images: Images, choice: Any) -> tuple[Tensor, Tensor]:
        """The object of each candidate, -1 for none, and the score that it should give: both (g, v)."""
        raise NotImplementedError


def _gathered(near: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (g, v) of the true cells of each row, and which of these are real."""
    row, column = near.nonzero(as_tuple=True)
    if len(near) == 1:
        return column[None], torch.ones_like(column[None], dtype=torch.bool)
    counts = near.sum(dim=1)
    place = torch.arange(len(row), device=near.device) - (counts.cumsum(0) - counts)[row]
    most = int(counts.max())
    columns = torch.zeros(len(near), most, dtype=torch.long, device=near.device)
    return columns.index_put((row, place), column), torch.arange(most, device=near.device) < counts[:, None]


def _counted_from(matches: Matches, images: Images, before: tuple[int, int], priors: int) -> Matches:
    """Matches with priors and objects counted through all images of a step."""
    image = matches.priors // images.real.shape[1]
    counts = images.objects.sum(dim=1)
    past_priors, past_objects = before
    return Matches(
        images.rows.flatten()[matches.priors] + image * priors + past_priors,
        matches.objects + (counts.cumsum(0) - counts)[image] + past_objects,
        matches.quality,
    )


def _slices(rows: int, columns: int, most: int) -> Iterator[slice]:
    """Rows of a table in parts of at most ``most`` numbers, but at least one row."""
    step = max(1, most // max(columns, 1))
    for start in range(0, rows if columns else 0, step):
        yield slice(start, min(start + step, rows))


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
        half = boxes[..., 2:4, None] / 2 - self.BORDER
        return (along.abs() <= half[..., 0, :]) & (across.abs() <= half[..., 1, :])

    def _choice(self, images: Images) -> tuple[Owners, Owners, Tensor]:
        """Of each candidate: the object of least cost, one that chose it, and how many did."""
        return Owners(images), Owners(images), torch.zeros_like(images.real, dtype=torch.float32)

    def _consider(self, images: Images, block: Block, choice: tuple[Owners, Owners, Tensor]) -> None:
        cheapest, choosing, times = choice
        cost = self._cost(images, block)
        most = min(self.topk, cost.shape[2])
        wanted = block.ious.topk(most, dim=2).values.sum(dim=2, keepdim=True).int().clamp(min=1)
        least = cost.topk(most, dim=2, largest=False).indices
        within = torch.arange(most, device=cost.device) < wanted
        chosen = _where_real(torch.zeros_like(cost).scatter_(2, least, within.float()), block, 0)
        times += chosen.sum(dim=1)
        cheapest.offer(-cost, block)
        choosing.offer(chosen.log(), block)  # 0 if chosen

    def _decided(self, images: Images, choice: tuple[Owners, Owners, Tensor]) -> tuple[Tensor, Tensor]:
        cheapest, choosing, times = choice
        several = times > 1
        return (
            cheapest.objects.where(several, choosing.objects),
            cheapest.ious.where(several, choosing.ious),
        )

    def _cost(self, images: Images, block: Block) -> Tensor:
        distance = _distance(images.priors, block.boxes)
        cost = (
            _class_cost(images.scores, block.labels, block.ious)
            - self.IOU_WEIGHT * (block.ious + self.FLOOR).log()
            + torch.pow(10, distance - self.CENTRE_RADIUS)
        )
        return _where_real(cost, block, torch.inf)


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
        half = boxes[..., 2:4, None].clamp(min=self.least_side) / 2
        return (along.abs() < half[..., 0, :]) & (across.abs() < half[..., 1, :])

    def _choice(self, images: Images) -> Owners:
        return Owners(images)

    def _consider(self, images: Images, block: Block, choice: Owners) -> None:
        near = _where_real(self._near(images.priors, block.boxes), block, False)
        of_class = _of_labels(images.scores.transpose(1, 2), block.labels)
        alignment = self._alignment(of_class, block.ious)
        # Far below any alignment that matters, so it decides only when all are 0: in the first steps.
        preference = alignment + 1e-9 * 10 ** -_distance(images.priors, block.boxes)
        most = min(self.topk, alignment.shape[2])
        best = preference.where(near, -1).topk(most, dim=2).indices
        chosen = torch.zeros_like(near).scatter_(2, best, True) & near
        choice.offer(block.ious.where(chosen, -torch.inf), block)

    def _decided(self, images: Images, choice: Owners) -> tuple[Tensor, Tensor]:
        if not images.labels.numel():
            return choice.objects, choice.ious
        taken = choice.objects >= 0
        owner = choice.objects.clamp(min=0)
        ious = choice.ious * taken
        own = images.scores.gather(2, images.labels.gather(1, owner)[..., None])[..., 0]
        alignment = self._alignment(own, ious) * taken
        most = torch.zeros(2, *images.labels.shape, device=ious.device)
        each = owner.expand(2, -1, -1)
        most.scatter_reduce_(2, each, torch.stack([alignment, ious]), "amax")
        largest, sure = most.gather(2, each)
        return choice.objects, alignment / largest.clamp(min=torch.finfo(largest.dtype).tiny) * sure

    def _alignment(self, scores: Tensor, ious: Tensor) -> Tensor:
        return scores.sigmoid() ** self.alpha * ious**self.beta


def _seen_from(boxes: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Places of priors along and across each box, from its centre, in pixels: (g, m, n) each."""
    x, y = (priors[..., None, :, axis] - boxes[..., axis, None] for axis in (0, 1))
    cos, sin = boxes[..., 4, None].cos(), boxes[..., 4, None].sin()
    return x * cos + y * sin, y * cos - x * sin


def _distance(priors: Tensor, boxes: Tensor) -> Tensor:
    """From each object's centre to each prior, in its strides: (g, m, n)."""
    x, y = (priors[..., None, :, axis] - boxes[..., axis, None] for axis in (0, 1))
    return (x.square() + y.square()).sqrt() / priors[..., None, :, 2]


def _class_cost(scores: Tensor, labels: Tensor, ious: Tensor) -> Tensor:
    """Focused cross-entropy, summed over classes, if a prior learned an object: (g, v, classes) to (g, m, v).

    Classes other than the object's cost the same whatever the object; so one sum for each prior is enough.
    """
    scores = scores.transpose(1, 2)
    sure, surprise = scores.sigmoid(), functional.softplus(scores)
    each = surprise * sure.square()
    elsewhere = each.sum(dim=1, keepdim=True) - each
    own = _of_labels(surprise, labels) - _of_labels(scores, labels) * ious
    return _of_labels(elsewhere, labels) + own * (ious - _of_labels(sure, labels)).square()


def _where_real(values: Tensor, block: Block, otherwise: float) -> Tensor:
    return values if block.real is None else values.where(block.real, otherwise)


def _of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Rows (g, m, v) of values (g, classes, v) for labels (g, m)."""
    if len(values) == 1:
        return values[0, labels[0]][None]  # quicker on a CPU
    return values[torch.arange(len(values), device=values.device)[:, None], labels]
