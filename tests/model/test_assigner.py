"""The task-aligned assigner, compared with a plain loop over priors and objects."""

from __future__ import annotations

import math

import pytest
import torch

from tiltbox.geometry.rotated import pairwise_iou
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmengine.structures import InstanceData  # noqa: E402
from mmrotate.structures import RotatedBoxes  # noqa: E402

from tiltbox.model.assigner import TaskAlignedRotatedAssigner  # noqa: E402

SIDE, CLASSES = 96, 3


def grid() -> torch.Tensor:
    """Priors of strides 8, 16 and 32 over an image of 96 pixels: x, y, stride, stride."""
    levels = []
    for stride in (8, 16, 32):
        y, x = torch.meshgrid(torch.arange(0, SIDE, stride), torch.arange(0, SIDE, stride), indexing="ij")
        levels.append(torch.stack([x, y, *[torch.full_like(x, stride)] * 2], dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()


def predictions(priors: torch.Tensor, seed: int = 0) -> InstanceData:
    """Boxes near each prior, and scores before the sigmoid."""
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(len(priors), 5, generator=draw)
    boxes = torch.cat(
        [priors[:, :2] + 8 * boxes[:, :2] - 4, 10 + 30 * boxes[:, 2:4], 3 * boxes[:, 4:] - 1.5], dim=1
    )
    return InstanceData(priors=priors, bboxes=boxes, scores=torch.randn(len(priors), CLASSES, generator=draw))


def objects(rows: list, labels: list[int]) -> InstanceData:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return InstanceData(bboxes=RotatedBoxes(boxes), labels=torch.tensor(labels, dtype=torch.long))


def by_hand(found: InstanceData, truth: InstanceData, topk: int, least: float) -> tuple[list, list]:
    """The rule of the docstring, one pair at a time."""
    priors, boxes, labels = found.priors.tolist(), truth.bboxes.tensor, truth.labels.tolist()
    ious = pairwise_iou(found.bboxes, boxes).tolist()
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


def test_no_objects():
    result = TaskAlignedRotatedAssigner(13, 24).assign(predictions(grid()), objects([], []))
    assert result.num_gts == 0 and not result.gt_inds.any() and (result.labels == -1).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("topk", "least"), [(1, 0), (4, 16), (13, 24), (1000, 24)])
def test_like_a_plain_loop(seed, topk, least):
    draw = torch.Generator().manual_seed(100 + seed)
    rows = torch.rand(6, 5, generator=draw) * torch.tensor([90, 90, 40, 12, 3.0])
    rows += torch.tensor([3, 3, 5, 3, -1.5])
    truth = objects(rows.tolist(), torch.randint(CLASSES, (6,), generator=draw).tolist())
    found = predictions(grid(), seed)
    result = TaskAlignedRotatedAssigner(topk, least).assign(found, truth)
    owner, target = by_hand(found, truth, topk, least)
    assert (result.gt_inds - 1).tolist() == owner
    assert result.max_overlaps.tolist() == pytest.approx(target, rel=1e-4, abs=1e-7)
    labels = [truth.labels[j].item() if j >= 0 else -1 for j in owner]
    assert result.labels.tolist() == labels


def test_a_thin_object_between_the_priors_has_its_priors_from_the_first_step_on():
    """No prior is inside it, and no prediction overlaps it."""
    priors = grid()
    found = predictions(priors)
    found.bboxes = torch.tensor([[500.0, 500, 8, 8, 0]]).repeat(len(priors), 1)
    ship = objects([[44, 44, 18, 3, 0]], [1])
    inside = TaskAlignedRotatedAssigner(5, 0).assign(found, ship)
    widened = TaskAlignedRotatedAssigner(5, 24).assign(found, ship)
    assert (inside.gt_inds > 0).sum() == 0 and (widened.gt_inds > 0).sum() == 5
    taken = priors[widened.gt_inds > 0]
    assert taken[:, :2].sub(44).abs().max() < 12
    assert not widened.max_overlaps.any()  # they should learn the place, but not be sure yet


def test_an_object_outside_the_image():
    result = TaskAlignedRotatedAssigner(5, 24).assign(
        predictions(grid()), objects([[-400, 10, 20, 10, 0.3]], [0])
    )
    assert not result.gt_inds.any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_predictions_in_half_precision(kind):
    found, ship = predictions(grid()), objects([[44, 44, 18, 8, 0.4]], [1])
    found.scores, found.bboxes = found.scores.to(kind), found.bboxes.to(kind)
    result = TaskAlignedRotatedAssigner(5, 24).assign(found, ship)
    assert (result.gt_inds > 0).sum() == 5 and result.max_overlaps.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "y", "turn", "count"), [(44, 44, 0.0, 5), (40, 40, 0.7, 13), (51.3, 37.9, -1.2, 13)]
)
def test_how_many_priors_a_small_object_has(x, y, turn, count):
    """In 24 x 24 px, from 2 x 2 to 3 x 4 cells of the finest level, and a few of the others."""
    result = TaskAlignedRotatedAssigner(13, 24).assign(
        predictions(grid()), objects([[x, y, 12, 6, turn]], [0])
    )
    assert (result.gt_inds > 0).sum() == count
