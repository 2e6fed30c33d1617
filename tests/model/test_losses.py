"""The losses: the rotated IoU, an angle's distance, and the focused cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch

from tiltbox.model.losses import FocusedCrossEntropy, LinearRotatedIoULoss, angle_distance


def boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of an image of 1024 pixels, float32."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([0, 0, 8, 8, -1.5]), torch.tensor([1024, 1024, 120, 60, 1.5])
    return low + (high - low) * torch.rand(count, 5, generator=generator)


def slopes(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Gradient of the loss of each pair with respect to the predicted box."""
    predicted = predicted.clone().requires_grad_()
    loss = LinearRotatedIoULoss(loss_weight=1.0)
    loss(predicted, target, torch.ones(len(target))).backward()
    return predicted.grad


@pytest.mark.parametrize(("pixels", "radians"), [(0.02, 1e-3), (1e-3, 1e-5), (0.0, 1e-6)])
def test_almost_equal_boxes_have_modest_slopes(pixels, radians):
    """Their edges almost coincide; float32 would divide rounding errors by each other."""
    target = boxes(20_000, 0)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    predicted = target + noise * torch.tensor([pixels] * 4 + [radians])
    found = slopes(predicted, target)
    # An edge of 8 px moved by one pixel changes the IoU by 1/8; a turn by an eighth of the aspect.
    assert found[:, :4].abs().max() < 0.5 and found[:, 4].abs().max() < 20
    assert found.isfinite().all()


def test_the_loss_by_hand():
    predicted = torch.tensor([[5.0, 5, 4, 2, 0.3], [50, 50, 4, 2, 0]], requires_grad=True)
    target = torch.tensor([[5.0, 5, 4, 2, 0.3], [0, 0, 4, 2, 0]])
    loss = LinearRotatedIoULoss(loss_weight=2.0)(predicted, target, torch.tensor([0.5, 0.25]))
    assert loss.item() == pytest.approx(2 * 0.25, abs=1e-6) and loss.dtype == torch.float32


def test_no_pairs():
    nothing = torch.zeros(0, 5, requires_grad=True)
    loss = LinearRotatedIoULoss(loss_weight=2.0)(nothing, torch.zeros(0, 5), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("focus", [0.0, 2.0, 1.5])
def test_focused_cross_entropy_by_hand(focus):
    scores, target = torch.tensor([[0.3, -2.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.7], [0.0, 0.0]])
    expected = 0.0
    for score, wanted in zip(scores.flatten().tolist(), target.flatten().tolist(), strict=True):
        sure = 1 / (1 + math.exp(-score))
        entropy = -wanted * math.log(sure) - (1 - wanted) * math.log(1 - sure)
        expected += entropy * abs(wanted - sure) ** focus
    assert FocusedCrossEntropy(focus)(scores, target).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [(0, 0), (30, 0.5), (-30, 0.5), (90, 1), (150, 0.5), (180, 0), (-90, 1), (180 + 30, 0.5)],
)
def test_angle_distance(turn, expected):
    target = torch.tensor([[0.0, 0, 30, 10, -0.2]], dtype=torch.float64)
    predicted = torch.tensor([[40.0, 3, 8, 8, -0.2 + math.radians(turn)]], dtype=torch.float64)
    assert angle_distance(predicted, target).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("height", "share"), [(30, 0), (24, 0.5), (20, 1), (10, 1), (0, 1)])
def test_squares_have_no_direction(height, share):
    target = torch.tensor([[0.0, 0, 30, height, 0]])
    predicted = target + torch.tensor([0, 0, 0, 0, torch.pi / 2])
    assert angle_distance(predicted, target).item() == pytest.approx(share, abs=1e-6)


def test_the_angle_has_a_slope_where_the_iou_has_none():
    """A square that does not touch its target: the angle still learns, and only from its own term."""
    target = torch.tensor([[0.0, 0, 30, 10, 0.5]])
    predicted = torch.tensor([[100.0, 0, 16, 16, 0.0]], requires_grad=True)
    for weight, learns in ((0.0, False), (1.0, True)):
        predicted.grad = None
        loss = LinearRotatedIoULoss(loss_weight=5.0, angle_weight=weight)
        loss(predicted, target, torch.ones(1)).backward()
        assert bool(predicted.grad[0, 4].abs() > 0.5) is learns
        assert not predicted.grad[0, :4].any()
    assert predicted.grad[0, 4] < 0  # a step against it turns towards the target
