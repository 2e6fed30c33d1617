"""YOLOv8's neck: a path-aggregation pyramid without convolutions between its blocks on the way up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from tiltbox.model.layers import UNIFORM_FAN_IN, YOLO_BN, conv
from tiltbox.model.variant import Config
from tiltbox.model.yolov8.backbone import layers_at, ms_block
from tiltbox.model.yolov8.c2f import C2f

BOTTLENECKS = 3  # of each C2f, at depth 1
MS_KERNEL = 3  # of each MS-Block
MS_BRANCHES = 3


class YOLOv8Neck(BaseModule):
    """Three maps in, three maps out: first coarse to fine (top-down), then fine to coarse (bottom-up).

    Args:
        channels, block, depth: As in :class:`YOLOv8Backbone`.

    Shape: maps at strides 8, 16, 32 to maps of the same shapes.
    """

    def __init__(
        self, channels: Sequence[int], block: str, depth: float, init_cfg: Config | None = UNIFORM_FAN_IN
    ) -> None:
        super().__init__(init_cfg)
        fine, middle, coarse = channels[2:]

        def fuse(inputs: int, outputs: int) -> nn.Module:
            if block == "c2f":
                return C2f(inputs, outputs, layers_at(depth, BOTTLENECKS), shortcut=False)
            # The branches together have one and a half times as many channels as come in.
            return ms_block(inputs, outputs, 3 * inputs // 2 // MS_BRANCHES, MS_KERNEL, depth)

        self.top_down_layers = nn.ModuleList([fuse(coarse + middle, middle), fuse(middle + fine, fine)])
        self.downsample_layers = nn.ModuleList(
            [conv(number, number, 3, stride=2, norm=YOLO_BN) for number in (fine, middle)]
        )
        self.bottom_up_layers = nn.ModuleList([fuse(fine + middle, middle), fuse(middle + coarse, coarse)])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = maps
        middle = self.top_down_layers[0](torch.cat([self.upsample(coarse), middle], dim=1))
        fine = self.top_down_layers[1](torch.cat([self.upsample(middle), fine], dim=1))
        middle = self.bottom_up_layers[0](torch.cat([self.downsample_layers[0](fine), middle], dim=1))
        coarse = self.bottom_up_layers[1](torch.cat([self.downsample_layers[1](middle), coarse], dim=1))
        return fine, middle, coarse
