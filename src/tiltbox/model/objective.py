"""What a training optimises, whichever detector is trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tiltbox.configs import Settings


class Objective(Settings):
    """What a training optimises: which priors learn which object, and how much each loss counts.

    The defaults are the published recipe's.
    """

    assigner: Literal["dynamic-soft-label", "task-aligned"] = Field(
        "dynamic-soft-label",
        description="RTMDet's own, or one that gives each object priors from the first step on",
    )
    topk: int = Field(13, ge=1, description="the largest number of priors of an object")
    least_side: float = Field(
        0, ge=0, description="task-aligned: least side of an object in pixels, for finding priors in it"
    )
    focus: float = Field(2.0, ge=0, description="power of the quality focal loss; 0: plain cross-entropy")
    iou_weight: float = Field(2.0, ge=0, description="weight of the rotated IoU loss")
    angle_weight: float = Field(0.0, ge=0, description="weight of a loss for the angle of elongated objects")

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        if self.least_side and self.assigner != "task-aligned":
            raise ValueError("least_side is only for assigner: task-aligned; set that, or remove least_side")
        return self
