"""The detectors that can be trained: typed rows of ``configs/variants.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter, model_validator

from tiltbox.configs import CONFIGS, Settings, known_name, load
from tiltbox.errors import SettingsError, choice_of
from tiltbox.model.rtmdet.row import RTMDet
from tiltbox.model.variant import Name, Variant
from tiltbox.model.yoloms.row import YOLOMS
from tiltbox.model.yolov8.row import YOLOv8

# A new family is added here: the class of its rows.
Row = Annotated[YOLOMS | RTMDet | YOLOv8, Field(discriminator="family")]


class VariantTable(Settings):
    """The whole file."""

    weights: str
    variants: dict[Name, Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _compares_with_rows_that_exist(self) -> Self:
        for name, row in self.variants.items():
            for other in row.compared_with:
                if other not in self.variants or other == name:
                    rows = [each for each in self.variants if each != name]
                    known = choice_of(other, rows) if rows else "give []"
                    raise ValueError(
                        f"{name}: compared_with has '{other}', which is not another row; {known}"
                    )
        return self

    def url(self, path: str | None) -> str | None:
        """The full address of a weights file named in a row."""
        return f"{self.weights}/{path}" if path and "://" not in path else path


def published_checkpoint(name: str, path: Path = CONFIGS / "variants.yaml") -> str:
    """The address of the variant's published weights; a SettingsError if none are published."""
    table = load_variants(path)
    address = table.url(table.variants[known_name(name, table.variants, str(path), "variant")].checkpoint)
    if address is None:
        where = f"{path}: variants.{name}.checkpoint"
        raise SettingsError(where, "no weights are published", "give the file of your own training")
    return address


def read_variant(row: Any) -> Variant:
    """A row that was written as plain data; a pydantic.ValidationError if it is not one of this version."""
    return TypeAdapter[Variant](Row).validate_python(row)


# For fields of records: any row, written with the keys of its family.
AnyVariant = Annotated[SerializeAsAny[Variant], BeforeValidator(read_variant)]


def load_variants(path: Path = CONFIGS / "variants.yaml") -> VariantTable:
    return load(VariantTable, path)


def find_variant(name: str, path: Path = CONFIGS / "variants.yaml") -> Variant:
    """The row of that name, or a SettingsError that suggests the nearest one."""
    table = load_variants(path)
    return table.variants[known_name(name, table.variants, str(path), "variant")]
