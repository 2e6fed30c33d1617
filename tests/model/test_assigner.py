"""The assigners. The task-aligned one is compared with a plain loop over priors and objects.

That of RTMDet is compared with mmdet's in test_head.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch

from tiltbox.geometry.rotated import pairwise_iou
from tiltbox.model.assigner import Assigner, DynamicSoftLabel, Objects, TaskAligned

SIDE, CLASSES = 96, 3


def grid() -> torch.Tensor:
    """Priors of strides 8, 16 and 32 over an image of 96 pixels: x, y, stride, stride."""
    levels = []
    for stride in (8, 16, 32):
        y, x = torch.meshgrid(torch.arange(0, SIDE, stride), torch.arange(0, SIDE, stride), indexing="ij")
        levels.append(torch.stack([x, y, *[torch.full_like(x, stride)] * 2], dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()


class Found(NamedTuple):
    """Predictions of an image."""

    priors: torch.Tensor
    boxes: torch.Tensor
    scores: torch.Tensor


def predictions(priors: torch.Tensor, seed: int = 0) -> Found:
    """Boxes near each prior, and scores before the sigmoid."""
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(len(priors), 5, generator=draw)
    boxes = torch.cat(
        [priors[:, :2] + 8 * boxes[:, :2] - 4, 10 + 30 * boxes[:, 2:4], 3 * boxes[:, 4:] - 1.5], dim=1
    )
    return Found(priors, boxes, torch.randn(len(priors), CLASSES, generator=draw))


def objects(rows: list, labels: list[int]) -> Objects:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Objects(boxes, torch.tensor(labels, dtype=torch.long))


def match(assigner: Assigner, found: Found, *truth: Objects) -> tuple[list[int], list[float]]:
    """The object of each prior, or -1, and its quality, for as many copies of the predictions as images."""
    images = len(truth)
    matches = assigner.match(
        found.scores.expand(images, -1, -1), found.boxes.expand(images, -1, -1), found.priors, truth
    )
    owner = torch.full((images * len(found.priors),), -1)
    owner[matches.priors] = matches.objects
    quality = torch.zeros(len(owner))
    quality[matches.priors] = matches.quality
    assert matches.quality.dtype == torch.float32
    return owner.tolist(), quality.tolist()


def by_hand(found: Found, truth: Objects, topk: int, least: float) -> tuple[list, list]:
    """The rule of the docstring of TaskAligned, one pair at a time."""
    priors, boxes, labels = found.priors.tolist(), truth.boxes, truth.labels.tolist()
    ious = pairwise_iou(found.boxes, boxes).tolist()
    wanted: list[set[int]] = []
    align = [
        [torch.sigmoid(found.scores[i, c]).item() ** 0.5 * ious[i][j] ** 6 for j, c in enumerate(labels)]
        for i in range(len(priors))
    ]
    for j, (cx, cy, w, h, turn) in enumerate(boxes.tolist()):
        near = []
        for i, (x, y, stride, _) in enumerate(priors):
            u = (x - cx) * math.cos(turn) + (y - cy) * math.sin(turn)
            v = (y - cy) * math.cos(turn) - (x - cx) * math.sin(turn)
            if abs(u) < max(w, least) / 2 and abs(v) < max(h, least) / 2:
                tie = 1e-9 * 10 ** -(math.hypot(x - cx, y - cy) / stride)
                near.append((align[i][j] + tie, i))
        wanted.append({i for _, i in sorted(near, reverse=True)[:topk]})
    owner = [
        max((j for j in range(len(wanted)) if i in wanted[j]), key=lambda j: ious[i][j], default=-1)
        for i in range(len(priors))
    ]
    target = [0.0] * len(priors)
    for j in range(len(wanted)):
        mine = [i for i, each in enumerate(owner) if each == j]
        if mine and (best := max(align[i][j] for i in mine)) > 0:
            for i in mine:
                target[i] = align[i][j] / best * max(ious[k][j] for k in mine)
    return owner, target


@pytest.mark.parametrize("assigner", [TaskAligned(13, 24), DynamicSoftLabel(13)])
def test_no_objects(assigner):
    for images in (1, 3):
        owner, quality = match(assigner, predictions(grid()), *[objects([], [])] * images)
        assert set(owner) == {-1} and set(quality) == {0}


def scene(seed: int, count: int = 6) -> Objects:
    draw = torch.Generator().manual_seed(100 + seed)
    rows = torch.rand(count, 5, generator=draw) * torch.tensor([90, 90, 40, 12, 3.0])
    rows += torch.tensor([3, 3, 5, 3, -1.5])
    return objects(rows.tolist(), torch.randint(CLASSES, (count,), generator=draw).tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("topk", "least"), [(1, 0), (4, 16), (13, 24), (1000, 24)])
def test_like_a_plain_loop(seed, topk, least):
    found, truth = predictions(grid(), seed), scene(seed)
    owner, quality = match(TaskAligned(topk, least), found, truth)
    expected, target = by_hand(found, truth, topk, least)
    assert owner == expected
    assert quality == pytest.approx(target, rel=1e-4, abs=1e-7)


@pytest.fixture(params=[0, 5000, 2**25])
def together(request, monkeypatch):
    """Numbers in a table of several images: none as on a CPU, then of two, then of all images at once."""
    monkeypatch.setattr(Assigner, "_together", lambda self, tensor: request.param)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("topk", [3, 13])
@pytest.mark.parametrize("kind", [lambda topk: TaskAligned(topk, 24), DynamicSoftLabel])
def test_images_of_a_step_do_not_influence_each_other(kind, topk):
    assigner = kind(topk)
    found, scenes = predictions(grid()), [scene(0), objects([], []), scene(1, 1), scene(2, 9)]
    far = objects([[-400, 10, 20, 10, 0.3], [2, 2, 8, 4, 0.1]], [0, 2])  # the first has no candidates
    scenes += [far, scene(3, 30)]
    owner, quality = match(assigner, found, *scenes)
    before, size = 0, len(found.priors)
    for at, each in enumerate(scenes):
        alone, sure = match(assigner, found, each)
        rows = slice(at * size, (at + 1) * size)
        assert owner[rows] == [place + before if place >= 0 else -1 for place in alone]
        assert quality[rows] == pytest.approx(sure, rel=1e-6)
        before += len(each.labels)


def test_a_thin_object_between_the_priors_has_its_priors_from_the_first_step_on():
    """No prior is inside it, and no prediction overlaps it."""
    priors = grid()
    found = predictions(priors)._replace(boxes=torch.tensor([[500.0, 500, 8, 8, 0]]).repeat(len(priors), 1))
    ship = objects([[44, 44, 18, 3, 0]], [1])
    inside, _ = match(TaskAligned(5, 0), found, ship)
    widened, quality = match(TaskAligned(5, 24), found, ship)
    assert inside.count(0) == 0 and widened.count(0) == 5
    taken = priors[torch.tensor(widened) == 0]
    assert taken[:, :2].sub(44).abs().max() < 12
    assert not any(quality)  # they should learn the place, but not be sure yet


@pytest.mark.parametrize("assigner", [TaskAligned(5, 24), DynamicSoftLabel(13)])
def test_an_object_outside_the_image(assigner):
    owner, _ = match(assigner, predictions(grid()), objects([[-400, 10, 20, 10, 0.3]], [0]))
    assert set(owner) == {-1}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_predictions_in_half_precision(kind):
    found, ship = predictions(grid()), objects([[44, 44, 18, 8, 0.4]], [1])
    found = found._replace(scores=found.scores.to(kind), boxes=found.boxes.to(kind))
    owner, _ = match(TaskAligned(5, 24), found, ship)
    assert owner.count(0) == 5


@pytest.mark.parametrize(
    ("x", "y", "turn", "count"), [(44, 44, 0.0, 5), (40, 40, 0.7, 13), (51.3, 37.9, -1.2, 13)]
)
def test_how_many_priors_a_small_object_has(x, y, turn, count):
    """In 24 x 24 px, from 2 x 2 to 3 x 4 cells of the finest level, and a few of the others."""
    owner, _ = match(TaskAligned(13, 24), predictions(grid()), objects([[x, y, 12, 6, turn]], [0]))
    assert owner.count(0) == count
