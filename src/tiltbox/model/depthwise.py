"""Depth-wise convolutions whose kernels train quickly on a CPU.

For the gradient of a depth-wise kernel, PyTorch on a CPU needs up to 80 times as long as for the convolution
itself (9x9 over 4x4 cells). That gradient is a convolution, too: of each channel of the input with the
output's gradient as the kernel. Written so, it costs about as much as the forward pass.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

SMALLEST = 5  # kernels below it are quick in PyTorch


@MODELS.register_module()
class WideningDepthwiseConv(nn.Conv2d):
    """Depth-wise convolution with several outputs per channel, at stride 1; bits and keys are ``Conv2d``'s.

    On CPUs, PyTorch uses its depth-wise kernels only if there are as many outputs as inputs. So there is one
    such convolution for the first output of every channel, one for the second, and so on.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return super().forward(x)
        each = self.out_channels // self.in_channels
        weights = self.weight.unflatten(0, (-1, each)).unbind(1)
        parts = [depthwise(x, weight) for weight in weights]
        # Joined along the channels, so that a channels-last map stays channels-last.
        joined = torch.stack([part.movedim(1, -1) for part in parts], dim=-1).flatten(-2)
        return (joined if self.bias is None else joined + self.bias).movedim(-1, 1)


class DepthwiseConv(nn.Conv2d):
    """A depth-wise ``Conv2d`` without bias, at stride 1, that keeps the size of the map."""

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight)


def quicken(model: nn.Module) -> None:
    """Make the depth-wise convolutions of a model that is trained on a CPU quick; outputs stay the same."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_depthwise(module):
            module.__class__ = DepthwiseConv


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise convolution: (b, c, h, w) with square kernels (c, 1, k, k), k odd, to (b, c, h, w)."""
    if torch.is_grad_enabled() and weight.shape[-1] >= SMALLEST:
        return cast(Tensor, _Depthwise.apply(x, weight))  # type: ignore[no-untyped-call]
    return _convolve(x, weight)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight = ctx.needs_input_grad
        return (
            # A kernel of odd size that is turned by 180 degrees leads back from outputs to inputs.
            _convolve(gradient, weight.flip(2, 3)) if wanted_x else None,
            _kernel_gradient(x, gradient, weight.shape[-1]) if wanted_weight else None,
        )


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))


def _kernel_gradient(x: Tensor, gradient: Tensor, side: int) -> Tensor:
    """(b, c, h, w) twice to (c, 1, side, side)."""
    images, channels, height, width = x.shape
    # Kernel cells farther from the centre than the map is large never meet a pixel.
    reach = min(side // 2, max(height, width) - 1)
    maps, kernels = _planes(x)[None].flatten(1, 2), _planes(gradient).flatten(0, 1)[:, None]
    each = functional.conv2d(maps, kernels, padding=reach, groups=images * channels)
    found = each.unflatten(1, (images, channels)).sum(1).movedim(0, 1)
    rest = side // 2 - reach
    return functional.pad(found, (rest,) * 4) if rest else found


def _planes(x: Tensor) -> Tensor:
    """A contiguous copy of (b, c, h, w). PyTorch copies matrices quickly, but not channels-last maps."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous()
    planes = torch.empty(x.shape, dtype=x.dtype)
    for plane, pixels in zip(planes.flatten(2), x.flatten(2), strict=True):
        plane.copy_(pixels)
    return planes


def _is_depthwise(module: nn.Conv2d) -> bool:
    side = module.kernel_size[0]
    plain = module.stride == module.dilation == (1, 1) and module.padding_mode == "zeros"
    whole = module.kernel_size == (side, side) and module.padding == (side // 2, side // 2) and side % 2 == 1
    alone = module.groups == module.in_channels == module.out_channels
    return plain and whole and alone and module.bias is None and side >= SMALLEST
