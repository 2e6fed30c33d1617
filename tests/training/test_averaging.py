"""The averaged weights against mmdet's, which averages tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.models.layers import ExpMomentumEMA  # noqa: E402

from tiltbox.training.averaging import AveragedWeights  # noqa: E402

SETTINGS = {"momentum": 0.002, "gamma": 10, "update_buffers": True}


@pytest.fixture
def model() -> nn.Module:
    """With a layer that is there three times, as RTMDet's head shares convolutions between levels."""
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    levels = nn.ModuleList([nn.Sequential(shared, nn.BatchNorm1d(4)) for _ in range(3)])
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(5, 2, bias=False), levels)


def step(model: nn.Module) -> None:
    """Change weights and running statistics as a step of training does."""
    model[1](model[0](torch.randn(2, 3, 6, 6)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_the_bits_are_mmdets(model):
    ours, theirs = AveragedWeights(model, **SETTINGS), ExpMomentumEMA(model, **SETTINGS)
    for _ in range(30):
        step(model)
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())
    assert int(ours.steps) == 30 and not torch.equal(ours.module[0].weight, model[0].weight)


def test_weights_may_be_swapped_for_the_average_and_back(model):
    """As the hook does for a validation: the average must follow the model, not the place of its weights."""
    ours = AveragedWeights(model, **SETTINGS)
    for _ in range(2):
        step(model)
        ours.update_parameters(model)
    for mine, other in zip(ours.module.parameters(), model.parameters(), strict=True):
        mine.data, other.data = other.data, mine.data
    before = ours.module[0].weight.clone()
    model[0].weight.data.fill_(1e6)
    ours.update_parameters(model)
    assert torch.equal(torch.sign(ours.module[0].weight - before), torch.ones_like(before))
