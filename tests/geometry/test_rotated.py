"""Rotated IoU and NMS in PyTorch against shapely, finite differences and a greedy loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltbox.geometry.rotated import aligned_intersection, aligned_iou, pairwise_iou, rotated_nms


def polygons(boxes: torch.Tensor) -> np.ndarray:
    rows = boxes.double().numpy()
    return np.array(
        [
            shapely.affinity.rotate(
                shapely.box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), t, use_radians=True
            )
            for cx, cy, w, h, t in rows
        ]
    )


def shapely_iou(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    a, b = polygons(first), polygons(second)
    overlap = shapely.area(shapely.intersection(a, b))
    return overlap / (shapely.area(a) + shapely.area(b) - overlap)


def random_boxes(n: int, seed: int, spread: float = 60) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    unit = torch.rand(n, 5, generator=g, dtype=torch.float64)
    low = torch.tensor([0, 0, 0.5, 0.5, -math.pi / 2], dtype=torch.float64)
    high = torch.tensor([spread, spread, 40, 20, math.pi / 2], dtype=torch.float64)
    return low + unit * (high - low)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_empty(n, m):
    assert pairwise_iou(torch.zeros(n, 5), torch.zeros(m, 5)).shape == (n, m)
    assert aligned_iou(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)
    assert rotated_nms(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0).long(), 0.1).shape == (0,)


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 0, 4, 2, 0.3), (0, 0, 4, 2, 0.3), 1),
        ((0, 0, 4, 2, 0), (4, 0, 4, 2, 0), 0),  # a shared edge
        ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0),  # a touching corner
        ((0, 0, 8, 8, 0.7), (0.5, 0.2, 2, 2, 0.1), 4 / 64),  # one inside the other
        ((0, 0, 4, 2, 0), (0, 0, 2, 4, math.pi / 2), 1),  # the same box in other terms
        ((0, 0, 4, 2, -math.pi / 2), (0, 0, 4, 2, math.pi / 2), 1),  # both ends of le90
        ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4), 8 * (math.sqrt(2) - 1) / (8 - 8 * (math.sqrt(2) - 1))),
        ((0, 0, 100, 1e-3, 0.2), (0, 0, 100, 1e-3, 0.2), 1),  # a needle
        ((1e6, 1e6, 4, 2, 0.5), (1e6 + 0.5, 1e6, 4, 2, 0.5), None),
        ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0),
        ((0, 0, 0, 5, 0), (0, 0, 4, 4, 0), 0),
        ((0, 0, math.nan, 5, 0), (0, 0, 4, 4, 0), 0),
    ],
)
def test_special_boxes(first, second, iou):
    a, b = (torch.tensor([box], dtype=torch.float64) for box in (first, second))
    expected = shapely_iou(a, b)[0] if iou is None else iou
    assert pairwise_iou(a, b).item() == pytest.approx(expected, abs=1e-9)
    assert pairwise_iou(b, a).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_random_boxes_against_shapely(dtype, tolerance):
    a, b = random_boxes(3000, seed=1), random_boxes(3000, seed=2)
    found = aligned_iou(a.to(dtype), b.to(dtype)).double().numpy()
    np.testing.assert_allclose(found, shapely_iou(a, b), atol=tolerance)


@given(
    centre=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    size=st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)),
    angle=st.floats(-math.pi / 2, math.pi / 2),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    other=st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)),
    turn=st.one_of(st.floats(-math.pi, math.pi), st.floats(-1e-7, 1e-7)),
)
@settings(max_examples=200)
def test_any_two_boxes_against_shapely(centre, size, angle, shift, other, turn):
    a = torch.tensor([[*centre, *size, angle]], dtype=torch.float64)
    b = torch.tensor(
        [[centre[0] + shift[0], centre[1] + shift[1], *other, angle + turn]], dtype=torch.float64
    )
    assert aligned_iou(a, b).item() == pytest.approx(shapely_iou(a, b)[0], abs=1e-9)


side = st.one_of(st.floats(0.5, 500), st.sampled_from([1e-2, 1.0, 1000.0]))


@given(
    centre=st.tuples(st.floats(-2e4, 2e4), st.floats(-2e4, 2e4)),
    size=st.tuples(side, side),
    angle=st.one_of(st.floats(-math.pi / 2, math.pi / 2), st.sampled_from([-math.pi / 2, 0.0])),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    other=st.one_of(st.none(), st.tuples(side, side)),
    turn=st.sampled_from([0.0, 1e-6, -1e-3, math.pi / 2, math.pi]),
)
@settings(max_examples=200)
def test_any_two_boxes_in_float32(centre, size, angle, shift, other, turn):
    """Needles, large coordinates, parallel sides: compared for exactly the numbers that float32 has."""
    a = torch.tensor([[*centre, *size, angle]], dtype=torch.float32)
    b = torch.tensor([[*np.add(centre, shift), *(other or size), angle + turn]], dtype=torch.float32)
    slimness = max(*a[0, 2:4], *b[0, 2:4]) / min(*a[0, 2:4], *b[0, 2:4])
    near = 1e-4 + 1e-7 * float(slimness)  # float32 cannot place the sides of a needle more exactly
    assert aligned_iou(a, b).item() == pytest.approx(shapely_iou(a, b)[0], abs=near)


def test_pairs_equal_rows():
    a, b = random_boxes(40, seed=3), random_boxes(30, seed=4)
    rows = torch.cartesian_prod(torch.arange(40), torch.arange(30))
    expected = aligned_iou(a[rows[:, 0]], b[rows[:, 1]]).view(40, 30)
    torch.testing.assert_close(pairwise_iou(a, b), expected)


def test_gradient_against_finite_differences():
    a, b = random_boxes(60, seed=5, spread=20), random_boxes(60, seed=6, spread=20)
    assert torch.autograd.gradcheck(aligned_intersection, (a.requires_grad_(), b.requires_grad_()))
    assert torch.autograd.gradcheck(aligned_iou, (a, b))


def test_gradient_of_equal_and_degenerate_boxes_is_finite():
    box = torch.tensor([[5.0, 5, 4, 2, 0.3], [5, 5, 0, 2, 0.3], [50, 5, 4, 2, 0]], requires_grad=True)
    aligned_iou(box, torch.tensor([[5.0, 5, 4, 2, 0.3]]).expand(3, 5)).sum().backward()
    assert torch.isfinite(box.grad).all()


def greedy(boxes, scores, labels, threshold):
    """The definition, one box at a time."""
    ious, kept = pairwise_iou(boxes, boxes), []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i].item(), i)):
        if all(labels[i] != labels[j] or ious[i, j] <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_nms_is_greedy_also_among_equal_scores(seed):
    g = torch.Generator().manual_seed(seed)
    boxes = random_boxes(300, seed=seed, spread=120)
    scores = torch.randint(0, 12, (300,), generator=g) / 12  # many ties
    labels = torch.randint(0, 3, (300,), generator=g)
    assert rotated_nms(boxes, scores, labels, 0.1).tolist() == greedy(boxes, scores, labels, 0.1)


def test_nms_suppresses_above_the_threshold_only():
    boxes = torch.tensor([[0.0, 0, 4, 2, 0], [4.0 / 3, 0, 4, 2, 0]], dtype=torch.float64)  # IoU exactly 1/2
    scores, labels = torch.tensor([0.9, 0.8]), torch.zeros(2).long()
    iou = aligned_iou(boxes[:1], boxes[1:]).item()
    assert rotated_nms(boxes, scores, labels, iou).tolist() == [0, 1]
    assert rotated_nms(boxes, scores, labels, math.nextafter(iou, 0)).tolist() == [0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree():
    a, b = random_boxes(500, seed=7), random_boxes(400, seed=8)
    torch.testing.assert_close(pairwise_iou(a.cuda(), b.cuda()).cpu(), pairwise_iou(a, b), atol=1e-12, rtol=0)
