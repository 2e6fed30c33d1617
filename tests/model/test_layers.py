"""The convolution that widens depth by depth: PyTorch's grouped convolution to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.model.layers import WideningDepthwiseConv


@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("each", [1, 2, 3])
def test_outputs_and_gradients_are_those_of_a_grouped_convolution(kernel, each):
    torch.manual_seed(0)
    reference = nn.Conv2d(6, 6 * each, kernel, padding=kernel // 2, groups=6, bias=False)
    ours = WideningDepthwiseConv(6, 6 * each, kernel, padding=kernel // 2, groups=6, bias=False)
    ours.load_state_dict(reference.state_dict())
    inputs = torch.randn(2, 6, 12, 10).to(memory_format=torch.channels_last)
    outputs, gradients = [], []
    for module in (reference, ours):
        x = inputs.clone(memory_format=torch.preserve_format).requires_grad_()
        outputs.append(module(x))
        outputs[-1].square().sum().backward()
        gradients.append((x.grad, module.weight.grad))
    assert outputs[1].detach() == pytest.approx(outputs[0].detach(), abs=1e-5)
    assert outputs[1].is_contiguous(memory_format=torch.channels_last)
    for found, expected in zip(gradients[1], gradients[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
