"""What a row of ``configs/variants.yaml`` says, whichever family its detector belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from tiltbox.configs import Settings

Config = dict[str, Any]  # as mmengine's registries read it: a type and its arguments
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]  # for folders, runs and Snakemake rules

Size = Literal["n", "tiny", "xs", "s", "m", "l", "x"]
SIZES: tuple[Size, ...] = get_args(Size)  # from small to large
PARTS = ("backbone", "neck", "bbox_head")  # as state-dicts call them
STRIDES = (8, 16, 32)  # of the maps that heads look at
IMAGENET_BGR: Config = {
    "mean": (103.53, 116.28, 123.675),
    "std": (57.375, 57.12, 58.395),
    "bgr_to_rgb": False,
}


@dataclass(frozen=True)
class Parts:
    """The parts in which families differ; types are import paths or names in mmdet and mmrotate.

    Attributes:
        backbone: Takes images (b, 3, h, w), gives maps at strides 8, 16 and 32.
        neck: Maps in, maps out.
        head: The maps' boxes; see :func:`separable_head`.
        pixels: Mean and standard deviation by which pixels are normalised, and their order of colours.
    """

    backbone: Config
    neck: Config
    head: Config
    pixels: Config


class Variant(Settings):
    """One row. Each family adds its own keys, and builds its detector from them.

    Attributes:
        STARTED: Parts that weights to start from must fill; entries of others are taken if they fit.
    """

    STARTED: ClassVar[tuple[str, ...]] = PARTS

    family: str
    size: Size = Field(description="decides epochs; detectors of a size are shown together")
    series: str = Field(min_length=1, description="what legends call it; a series has a colour")
    compared_with: tuple[Name, ...] = Field(description="rows to show the difference to")
    pretrained: str | None = Field(
        description="weights to start from: a path under the table's address, or one"
    )
    checkpoint: str | None = Field(description="published weights trained on DOTA-v1.0, likewise")

    def parts(self, num_classes: int) -> Parts:
        raise NotImplementedError


# What only the report or a start of training reads: it does not change which detector a row describes.
ASIDE = {"series", "compared_with", "pretrained", "checkpoint"}


def separable_head(num_classes: int, channels: int, **different: Any) -> Config:
    """Rotated RTMDet's head: two towers of two convolutions, the same for all levels but for batch norms.

    Args:
        channels: Of the maps that it looks at, and inside it.
        different: What a family has otherwise.
    """
    return {
        "type": "tiltbox.model.head.RotatedHead",
        "share_conv": True,
        "num_classes": num_classes,
        "in_channels": channels,
        "feat_channels": channels,
        "stacked_convs": 2,
        "angle_version": "le90",
        "anchor_generator": {"type": "mmdet.MlvlPointGenerator", "offset": 0, "strides": STRIDES},
        "bbox_coder": {"type": "DistanceAnglePointCoder", "angle_version": "le90"},
        "with_objectness": False,
        "exp_on_reg": True,
        "pred_kernel_size": 1,
        "use_hbbox_loss": False,
        "scale_angle": False,
        "loss_angle": None,
        "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "SiLU", "inplace": True},
    } | different
