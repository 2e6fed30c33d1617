"""The detectors that can be trained: typed rows of ``configs/variants.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tiltbox.errors import SettingsError
from tiltbox.settings.base import CONFIGS, Settings, known_name, load


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size} has no centre; give an odd number")
    return size


OUT_CHANNELS = 240  # of the neck, at width 1
Kernel = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Kernels = tuple[tuple[Kernel, Kernel], tuple[Kernel, Kernel]]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]  # for folders, runs and Snakemake rules
LayerType = Literal["bottleneck", "kxk_1x1"]


class Variant(Settings):
    """One row: everything in which a detector differs from the others."""

    size: Literal["xs", "s", "l"]
    generation: Literal["previous", "current"]
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
    pretrained: str | None = Field(description="COCO weights to start from, under the table's address")
    checkpoint: str | None = Field(description="published weights trained on DOTA-v1.0, likewise")

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


class VariantTable(Settings):
    """The whole file."""

    weights: str
    variants: dict[Name, Variant] = Field(min_length=1)

    def url(self, path: str | None) -> str | None:
        """The full address of a weights file named in a row."""
        return path and f"{self.weights}/{path}"


def published_checkpoint(name: str, path: Path = CONFIGS / "variants.yaml") -> str:
    """The address of the variant's published weights; a SettingsError if none are published."""
    table = load_variants(path)
    address = table.url(table.variants[known_name(name, table.variants, str(path), "variant")].checkpoint)
    if address is None:
        where = f"{path}: variants.{name}.checkpoint"
        raise SettingsError(where, "no weights are published", "give the file of your own training")
    return address


def load_variants(path: Path = CONFIGS / "variants.yaml") -> VariantTable:
    return load(VariantTable, path)


def find_variant(name: str, path: Path = CONFIGS / "variants.yaml") -> Variant:
    """The row of that name, or a SettingsError that suggests the nearest one."""
    table = load_variants(path)
    return table.variants[known_name(name, table.variants, str(path), "variant")]
