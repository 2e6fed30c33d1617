"""YOLOv8's backbone: a stem and four stages that halve the map; of C2f or of MS-Blocks.

Source: the names and numbers of mmyolo's ``YOLOv8CSPDarknet`` and, with MS-Blocks, of the YOLO-MS authors'
``yolov8-ms_n`` (Chen et al., arXiv:2308.05480).
"""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from tiltbox.model.layers import UNIFORM_FAN_IN, YOLO_BN, SpatialPyramidPooling, conv
from tiltbox.model.msblock import MSBlock
from tiltbox.model.variant import Config
from tiltbox.model.yolov8.c2f import C2f

BOTTLENECKS = (3, 6, 6, 3)  # of the C2f of each stage, at depth 1
MS_KERNELS = (3, 5, 7, 9)  # of the MS-Block of each stage
MS_LAYERS = 3  # per branch, at depth 1


def layers_at(depth: float, number: int) -> int:
    """The number of layers at this depth, at least one."""
    return max(round(number * depth), 1)


class YOLOv8Backbone(BaseModule):
    """Returns the maps of stages 2, 3 and 4 (strides 8, 16, 32).

    Args:
        channels: After the stem and after each stage.
        block: ``c2f`` or ``ms``.
        depth: Factor on the number of layers of each block.

    Shape: (b, 3, h, w) to three maps (b, c, h / stride, w / stride).
    """

    def __init__(
        self, channels: Sequence[int], block: str, depth: float, init_cfg: Config | None = UNIFORM_FAN_IN
    ) -> None:
        super().__init__(init_cfg)
        self.stem = conv(3, channels[0], 3, stride=2, norm=YOLO_BN)
        for stage in range(1, 5):
            inputs, outputs = channels[stage - 1], channels[stage]
            pooling = [SpatialPyramidPooling(outputs)] if stage == 4 else []
            down = conv(inputs, outputs, 3, stride=2, norm=YOLO_BN)
            layers = [down, _block(block, stage, outputs, depth), *pooling]
            self.add_module(f"stage{stage}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps = []
        for stage in range(1, 5):
            x = getattr(self, f"stage{stage}")(x)
            maps.append(x)
        return tuple(maps[1:])


def _block(kind: str, stage: int, channels: int, depth: float) -> nn.Module:
    if kind == "c2f":
        return C2f(channels, channels, layers_at(depth, BOTTLENECKS[stage - 1]), shortcut=True)
    return ms_block(channels, channels, channels, MS_KERNELS[stage - 1], depth)


def ms_block(inputs: int, outputs: int, branch: int, kernel: int, depth: float) -> MSBlock:
    """The MS-Block as the authors put it into YOLOv8: three branches, each fed by the one before it."""
    return MSBlock(
        inputs,
        outputs,
        branch,
        (kernel, kernel),
        layer="bottleneck",
        layers=layers_at(depth, MS_LAYERS),
        start_branch=1,
        norm=YOLO_BN,
    )
