"""Layers of a detector in the form that a GPU trains fastest; keys and what they compute stay the same.

The detectors have few channels and large maps. PyTorch's batch norm on a GPU then occupies only as many
multiprocessors as there are channels, and its depth-wise convolutions take ten times as long as it would to
read and write the maps.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn import functional

log = logging.getLogger("tiltbox")
NONE, SILU, LEAKY = 0, 1, 2  # activations


def quicken_on_gpu(model: nn.Module) -> bool:
    """Change the layers of a model in place; False, with a warning, where Triton cannot compile them."""
    if problem := _what_is_missing():
        log.warning("%s: training with PyTorch's own layers, which are slower", problem)
        return False
    for module in model.modules():
        if isinstance(module, ConvModule):
            _join_norm_and_activation(module)
        if isinstance(module, nn.Conv2d) and _is_depthwise(module):
            module.__class__ = QuickDepthwiseConv
    return True


def _what_is_missing() -> str | None:
    """What keeps Triton, which comes with PyTorch for GPUs, from compiling; it needs a C compiler."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    try:
        _compile_one()
    except Exception as error:  # of any kind: a compiler, its headers or a place for results may be missing
        return f"Triton cannot compile, for which it needs a C compiler and Python's headers ({error})"
    return None


def _compile_one() -> None:
    if torch.cuda.is_available():
        from tiltbox.model.kernels import depthwise

        depthwise(torch.zeros(1, 1, 3, 3, device="cuda"), torch.zeros(1, 1, 3, 3, device="cuda"))


class QuickDepthwiseConv(nn.Conv2d):
    """A depth-wise ``Conv2d`` at stride 1 that keeps the size of the map; inputs may have several outputs."""

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cuda and torch.is_grad_enabled()):
            return super().forward(x)
        from tiltbox.model.kernels import depthwise

        weight = self.weight
        if torch.is_autocast_enabled("cuda"):
            precision = torch.get_autocast_dtype("cuda")
            x, weight = x.to(precision), weight.to(precision)
        return depthwise(x, weight)


class QuickBatchNorm(nn.BatchNorm2d):
    """Batch norm and the activation after it, for which ``ConvModule`` then has an identity."""

    activation: tuple[int, float]

    def forward(self, x: Tensor) -> Tensor:
        several = x.shape[0] * x.shape[2] * x.shape[3] > 1  # with one value PyTorch says what is wrong
        if not (x.is_cuda and self.training and several):
            return self._activated(super().forward(x))
        from tiltbox.model.kernels import Norm, batch_norm

        running: Any = (self.running_mean, self.running_var, self.num_batches_tracked)
        assert self.momentum is not None, "_is_plain"
        return batch_norm(x, self.weight, self.bias, Norm(running, self.momentum, self.eps, self.activation))

    def _activated(self, x: Tensor) -> Tensor:
        kind, leak = self.activation
        return functional.silu(x) if kind == SILU else functional.leaky_relu(x, leak) if kind == LEAKY else x


def _join_norm_and_activation(module: ConvModule) -> None:
    norm, activation = module.norm, _activation(module)
    if activation is None or type(norm) is not nn.BatchNorm2d or not _is_plain(norm):
        return
    if module.order != ("conv", "norm", "act"):
        return
    norm.__class__ = QuickBatchNorm
    norm.activation = activation  # type: ignore[assignment]
    if module.with_activation:
        module.activate = nn.Identity()


def _activation(module: ConvModule) -> tuple[int, float] | None:
    """Its kind and slope below 0, as the kernels take them; None for others."""
    if not module.with_activation:
        return NONE, 0.0
    if type(module.activate) is nn.SiLU:
        return SILU, 0.0
    return (LEAKY, module.activate.negative_slope) if type(module.activate) is nn.LeakyReLU else None


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    return norm.affine and norm.track_running_stats and norm.momentum is not None


def _is_depthwise(module: nn.Conv2d) -> bool:
    side = module.kernel_size[0]
    plain = module.stride == module.dilation == (1, 1) and module.padding_mode == "zeros"
    whole = module.kernel_size == (side, side) and module.padding == (side // 2, side // 2) and side % 2 == 1
    return plain and whole and module.groups == module.in_channels > 1 and module.bias is None and side > 1
