"""The two heads: rotated RTMDet's shared one (previous) and an unshared one (current).

Targets, losses and decoding are mmrotate's; non-maximum suppression is tiltbox's own.
"""

from __future__ import annotations

from mmcv.cnn import ConvModule
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from mmrotate.registry import MODELS
from torch import nn

from tiltbox.geometry.rotated import rotated_nms
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmrotate.models.dense_heads.rotated_rtmdet_head import RotatedRTMDetSepBNHead  # noqa: E402

UNSHARED_KERNELS = (3, 5, 7)  # of the first convolution at strides 8, 16, 32; the second is always 3x3


@MODELS.register_module()
class YOLOMSSharedHead(RotatedRTMDetSepBNHead):
    """One set of convolutions for all levels; each level has its own batch norm."""

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict | None = None,
    ) -> InstanceData:
        """Scale back to the patch if asked, then keep the best boxes after per-class NMS."""
        if rescale:
            factors = [1 / factor for factor in img_meta["scale_factor"]]
            results.bboxes.rescale_(factors)
        if with_nms:
            kept = rotated_nms(
                results.bboxes.tensor, results.scores, results.labels, cfg["nms"]["iou_threshold"]
            )
            results = results[kept[: cfg["max_per_img"]]]
        return results


class _GroupedConv(nn.Module):
    """A convolution of the unshared head; the wrapping module is part of the published key names."""

    def __init__(self, channels: int, kernel: int, groups: int, norm_cfg: dict, act_cfg: dict) -> None:
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

    def forward(self, x):
        return self.conv(x)


@MODELS.register_module()
class YOLOMSUnsharedHead(YOLOMSSharedHead):
    """A set of convolutions per level with kernels 3, 5, 7; those above 3 are grouped.

    Args:
        groups: Groups of the 5x5 and 7x7 convolutions.
        kwargs: As for :class:`RotatedRTMDetSepBNHead`.
    """

    def __init__(self, groups: int, **kwargs) -> None:
        self.groups = groups
        super().__init__(share_conv=False, **kwargs)

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
