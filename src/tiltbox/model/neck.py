"""The YOLO-MS neck: a path-aggregation pyramid (PAFPN) whose fusing blocks are MS-Blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmrotate.registry import MODELS
from torch import Tensor, nn

from tiltbox.model.backbone import STAGE_CHANNELS, UNIFORM_FAN_IN
from tiltbox.model.msblock import MSBlock, conv
from tiltbox.settings.variants import OUT_CHANNELS

INNER_CHANNELS = (160, 320, 640)  # of the three levels inside the neck, at width 1


@MODELS.register_module()
class YOLOMSNeck(BaseModule):
    """Three maps in, three maps out: first coarse to fine (top-down), then fine to coarse (bottom-up).

    Args:
        width: Factor on all channel numbers.
        layer, layers, start_branch: As in :class:`MSBlock`.
        top_down_kernels, bottom_up_kernels: Kernels of the two blocks of each path, fine map first.

    Shape: maps at strides 8, 16, 32 to maps of int(240 * width) channels at the same strides.
    """

    def __init__(
        self,
        width: float,
        layer: str,
        layers: int,
        start_branch: int,
        top_down_kernels: Sequence[Sequence[int]],
        bottom_up_kernels: Sequence[Sequence[int]],
        init_cfg: dict | None = UNIFORM_FAN_IN,
    ) -> None:
        super().__init__(init_cfg)
        inputs = [int(number * width) for number in STAGE_CHANNELS[2:]]
        inner = [int(number * width) for number in INNER_CHANNELS]
        outputs = int(OUT_CHANNELS * width)

        def fuse(level: int, out_level: int, kernels: Sequence[int]) -> MSBlock:
            channels = 2 * inner[level]
            return MSBlock(
                channels,
                inner[out_level],
                inner[level],
                kernels,
                layer=layer,
                layers=layers,
                start_branch=start_branch,
            )

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
