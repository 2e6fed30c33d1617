"""Layers that several families use."""

from __future__ import annotations

import math

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from tiltbox.model.variant import Config

BN: Config = {"type": "BN"}
YOLO_BN: Config = {"type": "BN", "momentum": 0.03, "eps": 0.001}
SILU: Config = {"type": "SiLU", "inplace": True}
UNIFORM_FAN_IN: Config = {
    "type": "Kaiming",
    "layer": "Conv2d",
    "a": math.sqrt(5),
    "distribution": "uniform",
    "mode": "fan_in",
    "nonlinearity": "leaky_relu",
}


def conv(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    kind: str = "Conv2d",
    norm: Config = BN,
) -> ConvModule:
    """Convolution, batch norm, SiLU; padded to keep the map's size at stride 1."""
    return ConvModule(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        conv_cfg={"type": kind},
        norm_cfg=norm,
        act_cfg=SILU,
    )


class SpatialPyramidPooling(nn.Module):
    """Max pooling at 5, 9 and 13 pixels, by pooling at 5 three times in a row (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels // 2, 1, norm=YOLO_BN)
        self.poolings = nn.MaxPool2d(5, stride=1, padding=2)
        self.conv2 = conv(channels // 2 * 4, channels, 1, norm=YOLO_BN)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.conv1(x)]
        for _ in range(3):
            maps.append(self.poolings(maps[-1]))
        return self.conv2(torch.cat(maps, dim=1))
