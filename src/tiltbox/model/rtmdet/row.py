"""A row of the family ``rtmdet-r``, and the detector that it describes: all of its modules are mmdet's.

Source: Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", arXiv:2212.07784,
and mmrotate's ``configs/rotated_rtmdet``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tiltbox.model.variant import IMAGENET_BGR, Parts, Variant, separable_head

CHANNELS = (256, 512, 1024)  # of the maps from the backbone, at width 1
COMMON = {"expand_ratio": 0.5, "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "SiLU", "inplace": True}}


class RTMDet(Variant):
    """Everything in which one RTMDet-R differs from the others."""

    STARTED: ClassVar = ("backbone",)  # its public weights to start from are an image classifier's

    family: Literal["rtmdet-r"]
    width: float = Field(gt=0, description="factor on all channel numbers")
    depth: float = Field(gt=0, description="factor on the number of blocks of each stage")
    neck_blocks: int = Field(ge=1, description="blocks of each layer of the neck")
    exp_on_reg: bool = Field(description="whether distances are the exponential of what the head gives")

    def parts(self, num_classes: int) -> Parts:
        inputs = [int(number * self.width) for number in CHANNELS]
        backbone = {
            "type": "mmdet.CSPNeXt",
            "arch": "P5",
            "deepen_factor": self.depth,
            "widen_factor": self.width,
            "channel_attention": True,
            **COMMON,
        }
        neck = {
            "type": "mmdet.CSPNeXtPAFPN",
            "in_channels": inputs,
            "out_channels": inputs[0],
            "num_csp_blocks": self.neck_blocks,
            **COMMON,
        }
        head = separable_head(num_classes, inputs[0], exp_on_reg=self.exp_on_reg)
        return Parts(backbone, neck, head, IMAGENET_BGR)
