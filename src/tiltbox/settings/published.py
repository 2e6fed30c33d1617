"""The published numbers to compare ours with: the typed content of ``configs/published.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from tiltbox.configs import CONFIGS, Settings, load

Percent = Annotated[float, Field(ge=0, le=100)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Conditions(Settings):
    """How the published numbers were obtained."""

    title: str
    dataset: str = Field(description="our name of the dataset they were measured on")
    split: str
    pretraining: str
    augmentation: str
    epochs: int
    image_size: int
    images_per_step: int


class PublishedRow(Settings):
    """One row of the model table; accuracy is None where it was never measured."""

    mAP: Percent | None
    AP50: Percent | None
    AP75: Percent | None
    params: float = Field(gt=0, description="millions")
    flops: float = Field(gt=0, description="billions of multiply-adds at 1 x 3 x 1024 x 1024")
    pretraining: str | None = Field(None, description="where it differs from the conditions")
    note: str | None = Field(None, description="a sentence for below the table")


class Published(Settings):
    """The whole file; ``classes`` holds AP50 as fractions, by variant and class."""

    conditions: Conditions
    variants: dict[str, PublishedRow]
    classes: dict[str, dict[str, Fraction]]

    def pretraining(self, name: str) -> str:
        """What the published training of a variant started from."""
        return self.variants[name].pretraining or self.conditions.pretraining

    @model_validator(mode="after")
    def _classes_are_of_known_variants(self) -> Self:
        for name in self.classes:
            if name not in self.variants:
                raise ValueError(f"classes has '{name}', but variants does not; add its row or remove it")
        return self


def load_published(path: Path = CONFIGS / "published.yaml") -> Published:
    return load(Published, path)
