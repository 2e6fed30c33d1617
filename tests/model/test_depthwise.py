"""Depth-wise convolutions: outputs of PyTorch's grouped convolution to the bit, and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.model.depthwise import DepthwiseConv, WideningDepthwiseConv, quicken


def run(module: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs, and gradients of inputs and weights."""
    x = inputs.clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = module(x)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    return outputs.detach(), x.grad, module.weight.grad


def grouped(kernel: int, each: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 6 * each, kernel, padding=kernel // 2, groups=6, bias=False)


@pytest.mark.parametrize("kernel", [3, 5, 9])
@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("size", [(12, 10), (3, 4), (1, 1), (2, 20)])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_outputs_and_gradients_are_those_of_a_grouped_convolution(kernel, each, size, memory):
    reference = grouped(kernel, each)
    if each > 1:
        ours = WideningDepthwiseConv(6, 6 * each, kernel, padding=kernel // 2, groups=6, bias=False)
    else:
        ours = DepthwiseConv(6, 6, kernel, padding=kernel // 2, groups=6, bias=False)
    ours.load_state_dict(reference.state_dict())
    inputs = torch.randn(2, 6, *size).to(memory_format=memory)
    expected, found = run(reference, inputs), run(ours, inputs)
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    if memory is torch.channels_last:
        assert found[0].is_contiguous(memory_format=torch.channels_last)
    for ours, reference in zip(found[1:], expected[1:], strict=True):
        assert ours == pytest.approx(reference, rel=1e-4, abs=1e-4)


def test_frozen_weights_and_inputs_without_gradients():
    module = DepthwiseConv(6, 6, 5, padding=2, groups=6, bias=False).requires_grad_(False)
    x = torch.randn(1, 6, 8, 8, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None and module.weight.grad is None
    module.requires_grad_(True)
    module(x.detach()).sum().backward()
    assert module.weight.grad is not None


def test_only_what_is_slow_is_replaced():
    others = [
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 6, 5, padding=2, bias=False),
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 6, 5, padding=2, stride=2, groups=6, bias=False),
        nn.Conv2d(6, 6, 5, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 12, 5, padding=2, groups=6, bias=False),
        nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False, padding_mode="reflect"),
    ]
    model = nn.Sequential(grouped(5), *others)
    keys = list(model.state_dict())
    quicken(model)
    assert type(model[0]) is DepthwiseConv
    assert all(type(module) is nn.Conv2d for module in model[1:])
    assert list(model.state_dict()) == keys
