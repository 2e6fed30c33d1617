"""What the stages write, as typed records: JSON files, and CSV files as rows.

The stage that writes a file and the code that reads it share one class. A missing file is read as None; a
malformed one raises a DataError that names the key.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tiltbox.errors import DataError
from tiltbox.files.atomic import write_json

# The eleven summands of a perfect AP may add up to slightly more than 1.
Fraction = Annotated[float, Field(ge=0, le=1 + 1e-9)]
Degrees = Annotated[float, Field(ge=0, le=90)]
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """Frozen; unknown keys, such as those of a later version, are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class PatchManifest(Record):
    """manifest.json of a folder of patches: what was cut and how; without labels all counts of objects are 0.

    Attributes:
        contents: A hash of all pixels and labels.
    """

    sources: tuple[str, ...] = ()
    size: Count
    overlap: Count
    rates: tuple[float, ...]
    iof: float
    labelled: bool
    images: Count
    nearly_black_images: Count = 0
    patches: Count
    empty_patches: Count
    objects: Count
    objects_without_area: Count = 0
    objects_outside_images: Count = 0
    objects_cut_by_every_patch: Count = 0
    objects_in_patches: Count
    cut_objects: Count = 0
    classes: dict[str, Count] = {}
    contents: str


class Validated(Record):
    """How a training was scored along the way.

    Attributes:
        held_out_images: Training images held out for validation; 0 if it was done on the test split.
        best_epoch: The validated epoch with the highest AP50; ``best_AP50`` is a fraction.
        checkpoint: The epoch whose weights are the result.
        seconds: Time that validation took.
    """

    held_out_images: Count
    best_epoch: Count
    best_AP50: Fraction
    checkpoint: Literal["last", "best"]
    seconds: Annotated[float, Field(ge=0)]


class Training(Record):
    """train.json: how a variant was trained."""

    variant: str = ""
    size: str
    series: str = ""
    pretrained: str | None
    augmentation: tuple[str, ...]
    epochs: Count
    steps: Count
    images_per_step: Annotated[int, Field(ge=1)]
    processes: Annotated[int, Field(ge=1)]
    learning_rate: float
    image_size: Count
    seed: int
    device: str
    seconds: Annotated[float, Field(ge=0)]
    config_hash: str
    git_commit: str
    versions: dict[str, str]
    schedule_choice: str | None = None
    validation: Validated | None = None
    data: dict[str, JsonValue] = {}


class AngleErrors(Record):
    """Median and 90th percentile in degrees, None where no elongated object was found."""

    median: Degrees | None
    p90: Degrees | None
    objects: Count


class Accuracy(Record):
    """Scores in metrics.json, of one class or of all; AP is None without objects.

    Attributes:
        angle_error: None in files of versions that did not measure it.
    """

    AP50: Fraction | None
    AP75: Fraction | None
    mAP: Fraction | None
    angle_error: AngleErrors | None = None
    objects: Count

    @property
    def angle_median(self) -> float | None:
        """Degrees."""
        return None if self.angle_error is None else self.angle_error.median

    @property
    def angle_p90(self) -> float | None:
        """Degrees."""
        return None if self.angle_error is None else self.angle_error.p90


class ClassMetrics(Accuracy):
    """One class in metrics.json."""

    detections: Count


class Metrics(Accuracy):
    """metrics.json: AP as fractions."""

    dataset: str
    split: str
    labels: str = ""
    images: Count
    iou_thresholds: tuple[float, ...] = ()
    absent_classes: Literal["null", "zero"] = "null"
    angle_error_rule: dict[str, float] = {}
    classes: dict[str, ClassMetrics]


class Complexity(Record):
    """complexity.json: parameters, and multiply-adds at an input of that shape."""

    variant: str = ""
    input: tuple[int, int, int, int]
    params: Count
    flops: Count
    unit: Literal["multiply-adds"] = "multiply-adds"


class Epoch(Record):
    """One row of history.csv; a loss may be NaN, and an epoch without validation has no scores."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=True)

    epoch: Count
    loss: float
    val_AP50: Fraction | None = None
    val_mAP: Fraction | None = None


class CurvePoint(Record):
    """One row of pr_curves.csv."""

    name: str = Field(alias="class")
    threshold: Fraction
    recall: Fraction
    precision: Fraction


Corners = tuple[float, float, float, float, float, float, float, float]


class GalleryObject(Record):
    """A labelled object.

    Attributes:
        corners: ``x1 y1 … x4 y4``, pixels of the picture's window.
        difficult: Whether it counts neither way.
    """

    kind: str
    corners: Corners
    difficult: bool


class GalleryDetection(Record):
    """A detection, and what the evaluation made of it.

    Attributes:
        corners: As for objects.
        verdict: ``right``, ``wrong``, or ``aside`` where it matches a difficult object.
        object: The object that it matches rightly, an index into the picture's objects.
    """

    kind: str
    corners: Corners
    score: float
    verdict: Literal["right", "wrong", "aside"]
    object: Count | None = None


class GalleryImage(Record):
    """An image, or a window of a large one, with its objects and the detections in it.

    Attributes:
        name: Name of the image.
        source: Hash of the image file (:func:`tiltbox.provenance.file_hash`).
        left, top, width, height: The window in pixels of the image.
        picture: A data URI of the window.
    """

    name: str
    source: str
    left: Count
    top: Count
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    picture: str = Field(pattern=r"^data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/=]+$")
    objects: tuple[GalleryObject, ...]
    detections: tuple[GalleryDetection, ...]

    @property
    def found(self) -> frozenset[int]:
        """Indices of the objects that a detection is right about."""
        right = (each.object for each in self.of("right"))
        return frozenset(at for at in right if at is not None)

    @property
    def missed(self) -> tuple[GalleryObject, ...]:
        """Objects that count and were not found."""
        found = self.found
        return tuple(each for at, each in enumerate(self.objects) if not each.difficult and at not in found)

    def of(self, verdict: str) -> tuple[GalleryDetection, ...]:
        """The detections with a verdict."""
        return tuple(each for each in self.detections if each.verdict == verdict)


class Gallery(Record):
    """gallery.json: a few images of the test split with labels, and detections from ``score`` on.

    Attributes:
        iou: Above which a detection matches an object.
    """

    iou: Fraction
    score: float
    images: tuple[GalleryImage, ...]


R = TypeVar("R", bound=Record)


def read_record(kind: type[R], path: Path) -> R | None:
    """Read a JSON file as ``kind``, or return None if it does not exist.

    Raises:
        DataError: The file is not JSON, or a key is missing or of the wrong type.
    """
    text = _text(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}", f"is not valid JSON ({error.msg})", _again(path)) from None
    if not isinstance(content, dict):
        raise DataError(path, "contains no keys", _again(path))
    return _checked(kind, content, str(path))


def write_record(path: Path, record: Record) -> dict[str, Any]:
    """Write a JSON file, whole or not at all; returns its content."""
    content = record.model_dump(mode="json")
    write_json(path, content)
    return content


def read_rows(kind: type[R], path: Path) -> tuple[R, ...]:
    """Read a CSV file, each row as ``kind``; an empty cell counts as missing, a missing file has no rows.

    Raises:
        DataError: A column is missing, a row has cells beyond the last one, or a value is not a number (with
            its line).
    """
    text = _text(path)
    if text is None:
        return ()
    rows = csv.DictReader(text.splitlines())
    for name, field in kind.model_fields.items():
        column = field.alias or name
        if field.is_required() and column not in (rows.fieldnames or ()):
            raise DataError(f"{path}: {column}", "column not found", _again(path))
    return tuple(_row(kind, row, f"{path}:{rows.line_num}") for row in rows)


def _row(kind: type[R], row: dict[str, Any], where: str) -> R:
    if None in row:  # where csv.DictReader puts them
        raise DataError(where, "has more cells than the first line", _again(where))
    return _checked(kind, {key: value for key, value in row.items() if value != ""}, where)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise DataError(path, "is not valid UTF-8", _again(path)) from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check its permissions") from None


def _checked(kind: type[R], content: dict[str, Any], where: str) -> R:
    try:
        return kind(**content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        missing = first["type"] == "missing"
        problem = "is missing" if missing else f"{first['input']!r} is not accepted ({first['msg']})"
        raise DataError(f"{where}: {key}", problem, _again(where)) from None


def _again(path: Path | str) -> str:
    """The remedy: a file is in a folder named after the stage that writes it."""
    return f"run 'tiltbox {Path(path).parent.name}' again"
