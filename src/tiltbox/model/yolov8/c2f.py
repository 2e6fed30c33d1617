"""YOLOv8's block C2f: a chain of bottlenecks whose intermediate maps are all joined at the end.

Attribute names are those of mmyolo's published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tiltbox.model.layers import YOLO_BN, conv


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut around them."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3, norm=YOLO_BN)
        self.conv2 = conv(channels, channels, 3, norm=YOLO_BN)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(self.conv1(x))
        return x + inner if self.shortcut else inner


class C2f(nn.Module):
    """Half of the channels pass on, the other half goes through the bottlenecks.

    Shape: (b, inputs, h, w) to (b, outputs, h, w).
    """

    def __init__(self, inputs: int, outputs: int, bottlenecks: int, *, shortcut: bool) -> None:
        super().__init__()
        inner = outputs // 2
        self.main_conv = conv(inputs, 2 * inner, 1, norm=YOLO_BN)
        self.blocks = nn.ModuleList(Bottleneck(inner, shortcut=shortcut) for _ in range(bottlenecks))
        self.final_conv = conv((2 + bottlenecks) * inner, outputs, 1, norm=YOLO_BN)

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.main_conv(x).chunk(2, dim=1))
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return self.final_conv(torch.cat(maps, dim=1))
