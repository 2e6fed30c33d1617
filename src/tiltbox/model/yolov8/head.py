"""Rotated RTMDet's head on maps with different numbers of channels, as YOLOv8's neck gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule

from tiltbox.model.head import RotatedHead


class PerLevelHead(RotatedHead):
    """A set of convolutions per level; the first of each adapts to the level's number of channels.

    Args:
        level_channels: Of the maps, from fine to coarse.
        kwargs: As for :class:`RotatedRTMDetSepBNHead`.
    """

    def __init__(self, level_channels: Sequence[int], **kwargs: Any) -> None:
        self.level_channels = level_channels
        super().__init__(**kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        for tower in (self.cls_convs, self.reg_convs):
            for convs, channels in zip(tower, self.level_channels, strict=True):
                convs[0] = ConvModule(
                    channels,
                    self.feat_channels,
                    3,
                    padding=1,
                    norm_cfg=self.norm_cfg,
                    act_cfg=self.act_cfg,
                )
