"""A row of the family ``yoloms``, and the detector that it describes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tiltbox.model.variant import IMAGENET_BGR, Config, Parts, Variant, separable_head


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size} has no centre; give an odd number")
    return size


OUT_CHANNELS = 240  # of the neck, at width 1
LEAKY = {"type": "LeakyReLU", "inplace": True}
Kernel = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Kernels = tuple[tuple[Kernel, Kernel], tuple[Kernel, Kernel]]
LayerType = Literal["bottleneck", "kxk_1x1"]


class YOLOMS(Variant):
    """Everything in which one YOLO-MS differs from the others."""

    family: Literal["yoloms"]
    width: float = Field(gt=0)
    layers: int = Field(ge=1)
    start_branch: int = Field(ge=1, le=2)
    backbone_layer: LayerType
    neck_layer: LayerType
    top_down_kernels: Kernels
    bottom_up_kernels: Kernels
    attention: tuple[Annotated[int, Field(ge=1, le=4)], ...]
    query_size: int | None = Field(ge=1)
    head: Literal["shared", "unshared"]
    head_groups: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        if bool(self.attention) != (self.query_size is not None):
            raise ValueError("attention and query_size go together; give both or neither")
        if (self.head == "unshared") != (self.head_groups is not None):
            raise ValueError("head_groups belongs to the unshared head; give it only there, and always there")
        if self.channels < 1:
            raise ValueError(f"width {self.width} leaves no channels for the head; give a larger one")
        if self.head_groups and self.channels % self.head_groups:
            problem = f"width {self.width} gives the head {self.channels} channels"
            raise ValueError(f"{problem}, which head_groups {self.head_groups} does not divide; change one")
        return self

    @property
    def channels(self) -> int:
        """Channels of the neck's outputs and of the head."""
        return int(OUT_CHANNELS * self.width)

    def parts(self, num_classes: int) -> Parts:
        block = {"layers": self.layers, "start_branch": self.start_branch}
        backbone = {
            "type": "tiltbox.model.yoloms.backbone.YOLOMSBackbone",
            "width": self.width,
            "block": {**block, "layer": self.backbone_layer},
            "attention": self.attention,
            "query_size": self.query_size,
        }
        neck = {
            "type": "tiltbox.model.yoloms.neck.YOLOMSNeck",
            "width": self.width,
            "block": {**block, "layer": self.neck_layer},
            "top_down_kernels": self.top_down_kernels,
            "bottom_up_kernels": self.bottom_up_kernels,
            "outputs": self.channels,
        }
        return Parts(backbone, neck, self._head(num_classes), IMAGENET_BGR)

    def _head(self, num_classes: int) -> Config:
        if self.head == "shared":
            return separable_head(num_classes, self.channels, act_cfg=LEAKY)
        unshared = {"type": "tiltbox.model.yoloms.head.UnsharedHead", "groups": self.head_groups}
        return separable_head(num_classes, self.channels, act_cfg=LEAKY, share_conv=False, **unshared)
