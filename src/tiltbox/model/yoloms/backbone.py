"""The YOLO-MS backbone, arch C3-K3579: four stages of one MS-Block each, with kernels 3, 5, 7, 9."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from tiltbox.model.attention import QUERIES
from tiltbox.model.layers import UNIFORM_FAN_IN, SpatialPyramidPooling, conv
from tiltbox.model.msblock import MSBlock
from tiltbox.model.variant import Config

STAGE_KERNELS = (3, 5, 7, 9)
STAGE_CHANNELS = (80, 160, 320, 640, 1280)  # before stage 1 and after each stage, at width 1


class YOLOMSBackbone(BaseModule):
    """Stem and four stages; returns the maps of stages 2, 3 and 4 (strides 8, 16, 32).

    Args:
        width: Factor on all channel numbers.
        block: ``layer``, ``layers`` and ``start_branch`` of every :class:`MSBlock`.
        attention: Stages (1 to 4) whose MS-Block has global-query attention.
        query_size: Side of the pooled view for the attention.

    Shape: (b, 3, h, w) to three maps (b, c, h / stride, w / stride).
    """

    def __init__(
        self,
        width: float,
        block: Config,
        attention: Sequence[int] = (),
        query_size: int | None = None,
        init_cfg: Config | None = UNIFORM_FAN_IN,
    ) -> None:
        super().__init__(init_cfg)
        channels = [int(number * width) for number in STAGE_CHANNELS]
        half = int(STAGE_CHANNELS[0] * width // 2)
        self.stem = nn.Sequential(conv(3, half, 3, stride=2), conv(half, half, 3), conv(half, channels[0], 3))
        for stage, kernel in enumerate(STAGE_KERNELS, start=1):
            inputs, outputs = channels[stage - 1], channels[stage]
            fusion = MSBlock(
                inputs,
                outputs,
                inputs,
                (kernel, kernel),
                query_size=query_size if stage in attention else None,
                **block,
            )
            pooling = [SpatialPyramidPooling(inputs)] if stage == 4 else []
            self.add_module(
                f"stage{stage}", nn.ModuleList([conv(inputs, inputs, 3, stride=2), *pooling, fusion])
            )
        self.query = _queries(query_size) if attention else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps = []
        for stage in range(1, 5):
            *before, block = getattr(self, f"stage{stage}")
            for module in before:
                x = module(x)
            x = block(x, self.query)
            maps.append(x)
        return tuple(maps[1:])


def _queries(size: int | None) -> nn.Parameter:
    assert size is not None, "attention has a query_size"
    return nn.Parameter(torch.randn(QUERIES, size**2))
