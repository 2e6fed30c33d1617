"""The YOLO-MS neck: a path-aggregation pyramid (PAFPN) whose fusing blocks are MS-Blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from tiltbox.model.layers import UNIFORM_FAN_IN, conv
from tiltbox.model.msblock import MSBlock
from tiltbox.model.variant import Config
from tiltbox.model.yoloms.backbone import STAGE_CHANNELS

INNER_CHANNELS = (160, 320, 640)  # of the three levels inside the neck, at width 1


class YOLOMSNeck(BaseModule):
    """Three maps in, three maps out: first coarse to fine (top-down), then fine to coarse (bottom-up).

    Args:
        width: Factor on all channel numbers.
        block: ``layer``, ``layers`` and ``start_branch`` of every :class:`MSBlock`.
        top_down_kernels, bottom_up_kernels: Kernels of the two blocks of each path, fine map first.
        outputs: Channels of the maps that it gives.

    Shape: maps at strides 8, 16, 32 to maps of ``outputs`` channels at the same strides.
    """

    def __init__(
        self,
        width: float,
        block: Config,
        top_down_kernels: Sequence[Sequence[int]],
        bottom_up_kernels: Sequence[Sequence[int]],
        outputs: int,
        init_cfg: Config | None = UNIFORM_FAN_IN,
    ) -> None:
        super().__init__(init_cfg)
        inputs = [int(number * width) for number in STAGE_CHANNELS[2:]]
        inner = [int(number * width) for number in INNER_CHANNELS]

        def fuse(level: int, out_level: int, kernels: Sequence[int]) -> MSBlock:
            return MSBlock(2 * inner[level], inner[out_level], inner[level], kernels, **block)

        reduce = [nn.Sequential(conv(inputs[i], inner[i], 1), nn.Identity()) for i in range(3)]
        reduce[2][1] = conv(inner[2], inner[1], 1)
        self.reduce_layers = nn.ModuleList(reduce)
        self.top_down_layers = nn.ModuleList(
            [
                nn.Sequential(fuse(1, 1, top_down_kernels[1]), conv(inner[1], inner[0], 1)),
                fuse(0, 0, top_down_kernels[0]),
            ]
        )
        self.downsample_layers = nn.ModuleList([conv(inner[i], inner[i], 3, stride=2) for i in range(2)])
        self.bottom_up_layers = nn.ModuleList([fuse(i, i + 1, bottom_up_kernels[i]) for i in range(2)])
        self.out_layers = nn.ModuleList([conv(inner[i], outputs, 3) for i in range(3)])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = (reduce(x) for reduce, x in zip(self.reduce_layers, maps, strict=True))
        middle = self.top_down_layers[0](torch.cat([self.upsample(coarse), middle], dim=1))
        fine = self.top_down_layers[1](torch.cat([self.upsample(middle), fine], dim=1))
        middle = self.bottom_up_layers[0](torch.cat([self.downsample_layers[0](fine), middle], dim=1))
        coarse = self.bottom_up_layers[1](torch.cat([self.downsample_layers[1](middle), coarse], dim=1))
        return tuple(layer(x) for layer, x in zip(self.out_layers, (fine, middle, coarse), strict=True))
