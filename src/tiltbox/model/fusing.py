"""A detector for prediction alone: batch norms become part of the convolutions before them."""

from __future__ import annotations

import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fuse(model: nn.Module) -> nn.Module:
    """Change a detector in eval mode in place; what it computes stays the same but for rounding.

    Convolutions that several levels share, each with a batch norm of its own, become separate. The keys of
    its state-dict change, so weights have to be loaded before.
    """
    for module in model.modules():
        if isinstance(module, ConvModule) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)  # a copy
            setattr(module, module.norm_name, nn.Identity())
    on_cpu = not any(parameter.is_cuda for parameter in model.parameters())
    if on_cpu:  # slower on GPUs, since the numbers of channels are not multiples of eight
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
