"""The kernels against PyTorch's own layers in double precision: on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.nn import functional

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="needs Triton, which comes with PyTorch for GPUs")

from tiltbox.model.kernels import Norm, batch_norm, depthwise
from tiltbox.model.on_gpu import LEAKY, NONE, SILU

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ACTIVATIONS = {
    NONE: lambda u: u,
    SILU: functional.silu,
    LEAKY: lambda u: functional.leaky_relu(u, 0.01),
}


def close(found, wanted):
    apart = (found.double() - wanted).norm() / wanted.norm().clamp(min=1e-12)
    return apart.item() < 2e-6


@pytest.mark.parametrize("side", [3, 9])
@pytest.mark.parametrize(
    ("images", "inputs", "each", "height", "width"),
    [(2, 3, 2, 12, 20), (1, 5, 1, 3, 4), (1, 1, 3, 9, 130), (2, 2, 1, 33, 33)],
)
def test_depthwise(side, images, inputs, each, height, width):
    """Outputs and both gradients, also where the kernel is larger than the map, and for several tiles."""
    torch.manual_seed(side)
    x = torch.randn(images, inputs, height, width, device=DEVICE, requires_grad=True)
    weight = torch.randn(inputs * each, 1, side, side, device=DEVICE, requires_grad=True)
    wanted = functional.conv2d(x.double(), weight.double(), padding=side // 2, groups=inputs)
    gradient = torch.randn_like(wanted)
    found = depthwise(x, weight)
    assert close(found, wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight), gradient.float()),
        torch.autograd.grad(wanted, (x, weight), gradient),
        strict=True,
    ):
        assert close(ours, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (3, 2, 150, 120), (1, 4, 1, 2)])
def test_batch_norm(activation, shape):
    """Outputs, gradients, running averages: also far from 0, and where a plane has two chunks."""
    torch.manual_seed(0)
    x = (torch.randn(shape, device=DEVICE) * 3 + 500).requires_grad_()
    norm = nn.BatchNorm2d(shape[1], eps=1e-3, momentum=0.03).to(DEVICE, torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    weight, bias = (each.detach().float().requires_grad_() for each in (norm.weight, norm.bias))
    running = norm.running_mean.float(), norm.running_var.float(), norm.num_batches_tracked.clone()
    found = batch_norm(x, weight, bias, Norm(running, 0.03, 1e-3, (activation, 0.01)))
    exact = x.detach().double().requires_grad_()
    wanted = ACTIVATIONS[activation](norm(exact))
    assert (found - wanted).abs().max() < 1e-3
    gradient = torch.randn_like(wanted)
    ours = torch.autograd.grad(found, (x, weight, bias), gradient.float())
    theirs = torch.autograd.grad(wanted, (exact, norm.weight, norm.bias), gradient)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 1e-3 * other.norm() + 1e-3
    assert close(running[0], norm.running_mean)
    assert float((running[1] - norm.running_var).abs().max() / norm.running_var.max()) < 1e-4
    assert running[2] == 1


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision(precision):
    """Maps and their gradients in half precision, also channels-last; sums in single precision."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 20, 9, device=DEVICE).to(precision).to(memory_format=torch.channels_last)
    x.requires_grad_()
    kernel = torch.randn(6, 1, 5, 5, device=DEVICE, dtype=precision)
    scale, shift = torch.rand(6, device=DEVICE) + 0.5, torch.rand(6, device=DEVICE)
    running = torch.zeros(6, device=DEVICE), torch.ones(6, device=DEVICE), torch.tensor(0, device=DEVICE)
    found = batch_norm(depthwise(x, kernel), scale, shift, Norm(running, 0.1, 1e-5, (SILU, 0.0)))
    assert found.dtype == precision
    exact = x.detach().double().requires_grad_()
    maps = functional.conv2d(exact, kernel.double(), padding=2, groups=3)
    wanted = functional.silu(functional.batch_norm(maps, None, None, scale.double(), shift.double(), True))
    gradient = torch.randn_like(wanted).to(precision)
    (ours,) = torch.autograd.grad(found, x, gradient)
    (theirs,) = torch.autograd.grad(wanted, exact, gradient.double())
    error = 4e-3 if precision == torch.float16 else 3e-2
    for one, other in ((found, wanted), (ours, theirs)):
        assert (one.double() - other).norm() < error * other.norm()
