"""The head of the current YOLO-MS: a set of convolutions per level, with growing kernels."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from tiltbox.model.head import RotatedHead
from tiltbox.model.variant import Config

UNSHARED_KERNELS = (3, 5, 7)  # of the first convolution at strides 8, 16, 32; the second is always 3x3


class _GroupedConv(nn.Module):
    """A convolution of the unshared head; the wrapping module is part of the published key names."""

    def __init__(self, channels: int, kernel: int, groups: int, norm_cfg: Config, act_cfg: Config) -> None:
        super().__init__()
        self.conv = ConvModule(
            channels,
            channels,
            kernel,
            padding=kernel // 2,
            groups=1 if kernel == 3 else groups,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UnsharedHead(RotatedHead):
    """A set of convolutions per level with kernels 3, 5, 7; those above 3 are grouped.

    Args:
        groups: Groups of the 5x5 and 7x7 convolutions.
        kwargs: As for :class:`RotatedRTMDetSepBNHead`.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        self.groups = groups
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.cls_convs = self._towers()
        self.reg_convs = self._towers()

    def _towers(self) -> nn.ModuleList:
        def tower(kernel: int) -> nn.ModuleList:
            kernels = [kernel, *[3] * (self.stacked_convs - 1)]
            return nn.ModuleList(
                [
                    _GroupedConv(self.feat_channels, k, self.groups, self.norm_cfg, self.act_cfg)
                    for k in kernels
                ]
            )

        return nn.ModuleList([tower(kernel) for kernel in UNSHARED_KERNELS])
