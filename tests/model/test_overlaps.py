"""The rotated IoU as the assigner and the loss see it."""

from __future__ import annotations

import pytest
import torch

from tiltbox.geometry.rotated import aligned_iou
from tiltbox.model.overlaps import LinearRotatedIoULoss, RotatedOverlaps


def boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of an image of 1024 pixels, float32."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([0, 0, 8, 8, -1.5]), torch.tensor([1024, 1024, 120, 60, 1.5])
    return low + (high - low) * torch.rand(count, 5, generator=generator)


def slopes(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Gradient of the loss of each pair with respect to the predicted box."""
    predicted = predicted.clone().requires_grad_()
    loss = LinearRotatedIoULoss(loss_weight=1.0)
    loss(predicted, target, torch.ones(len(target)), avg_factor=1.0).backward()
    return predicted.grad


@pytest.mark.parametrize(("pixels", "radians"), [(0.02, 1e-3), (1e-3, 1e-5), (0.0, 1e-6)])
def test_almost_equal_boxes_have_modest_slopes(pixels, radians):
    """Their edges almost coincide, where float32 would divide rounding errors by each other."""
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
    loss = LinearRotatedIoULoss(loss_weight=2.0)(predicted, target, torch.tensor([0.5, 0.25]), 10.0)
    assert loss.item() == pytest.approx(2 * 0.25 / 10, abs=1e-6) and loss.dtype == torch.float32


def test_no_pairs_at_all():
    nothing = torch.zeros(0, 5, requires_grad=True)
    loss = LinearRotatedIoULoss(loss_weight=2.0)(nothing, torch.zeros(0, 5), torch.zeros(0), 1.0)
    loss.backward()
    assert loss.item() == 0


def test_the_matrix_of_the_assigner():
    first, second = boxes(30, 2), boxes(20, 3)
    first[:20] = second
    found = RotatedOverlaps()(first, second)
    assert found.shape == (30, 20) and not found.requires_grad
    assert found[:20].diagonal() == pytest.approx(aligned_iou(second, second).numpy(), abs=1e-6)
