"""detections.parquet: what a detector found on patches, one row per box.

The columns are ``image`` (string), ``x``, ``y`` and ``size`` (int32: the window of the original image that
the patch shows, in pixels of the image), ``class`` (dictionary of strings), ``score`` (float32) and ``cx``,
``cy``, ``w``, ``h``, ``theta`` (float32: an le90 rbox in pixels of the window, radians). A point of the
window is at (x, y) + point in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiltbox.dota.arrow import as_numpy, as_strings
from tiltbox.errors import DataError
from tiltbox.files.atomic import atomic_file

RBOX = ("cx", "cy", "w", "h", "theta")
SCHEMA = pa.schema(
    [("image", pa.string())]
    + [(name, pa.int32()) for name in ("x", "y", "size")]
    + [("class", pa.dictionary(pa.int32(), pa.string()))]
    + [(name, pa.float32()) for name in ("score", *RBOX)]
)


@dataclass(frozen=True)
class Detections:
    """Detections of all classes on all patches, as columns of n rows.

    Attributes:
        image_names, image: The names of the images and, for each row, an index into them, int32.
        x, y, size: The window in pixels of the image, int32.
        class_names, label: The names of the classes and, for each row, an index into them, int32.
        score: float32.
        rboxes: Shape (n, 5), float32, pixels of the window, le90.
    """

    image_names: tuple[str, ...]
    image: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    class_names: tuple[str, ...]
    label: np.ndarray
    score: np.ndarray
    rboxes: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def from_columns(
        cls,
        *,
        image: Sequence[str],
        x: np.ndarray,
        y: np.ndarray,
        size: np.ndarray,
        classes: Sequence[str],
        score: np.ndarray,
        rboxes: np.ndarray,
    ) -> Detections:
        """Detections from an image name and a class name for each row.

        >>> window, rboxes = dict(x=[0], y=[824], size=[1024]), [[5, 5, 4, 2, 0]]
        >>> found = Detections.from_columns(
        ...     image=["P1"], **window, classes=["ship"], score=[0.5], rboxes=rboxes
        ... )
        >>> found.image_names, found.class_names, found.label.tolist()
        (('P1',), ('ship',), [0])
        """
        image_names, images = _encoded(image)
        class_names, labels = _encoded(classes)
        x, y, size = (np.asarray(column, dtype=np.int32) for column in (x, y, size))
        score = np.asarray(score, dtype=np.float32)
        rboxes = np.asarray(rboxes, dtype=np.float32).reshape(-1, 5)
        lengths = {len(column) for column in (images, x, y, size, labels, score, rboxes)}
        if len(lengths) > 1:
            raise ValueError(f"Expected columns of one length, but got {sorted(lengths)}")
        return cls(image_names, images, x, y, size, class_names, labels, score, rboxes)


def write_detections(path: Path, detections: Detections) -> None:
    """Write a parquet file, whole or not at all."""
    columns = {
        "image": _dictionary(detections.image, detections.image_names).cast(pa.string()),
        "x": detections.x,
        "y": detections.y,
        "size": detections.size,
        "class": _dictionary(detections.label, detections.class_names),
        "score": detections.score,
        **{name: np.ascontiguousarray(detections.rboxes[:, i]) for i, name in enumerate(RBOX)},
    }
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns, schema=SCHEMA), temporary)


def read_detections(path: Path) -> Detections:
    """Read a parquet file.

    Strings may have any of Arrow's string types, plain or as a dictionary; numbers must have the types above.

    Raises:
        DataError: The file does not exist, it is not parquet, a column is missing, of another type or has
            missing values, or the name of an image is not allowed in a Task1 file.
    """
    table = _table(Path(path))
    for field in SCHEMA:
        _check(table, field, path)
    image_names, images = _encoded(table["image"])
    for name in image_names:
        if name.split() != [name]:
            problem = f"the name {name!r} is empty or contains whitespace, which result files do not allow"
            raise DataError(f"{path}: column 'image'", problem, "rename the image")
    class_names, labels = _encoded(table["class"])
    x, y, size = (as_numpy(table[name], np.int32) for name in ("x", "y", "size"))
    score = as_numpy(table["score"], np.float32)
    rboxes = np.stack([as_numpy(table[name], np.float32) for name in RBOX], axis=1)
    return Detections(image_names, images, x, y, size, class_names, labels, score, rboxes)


def _table(path: Path) -> pa.Table:
    remedy = "give a detections.parquet as 'tiltbox predict' writes it"
    if not path.is_file():
        raise DataError(path, "file not found", remedy)
    try:
        with pq.ParquetFile(path) as file:  # read_table would import pandas
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"cannot be read as parquet ({str(error).splitlines()[0]})", remedy) from None


def _check(table: pa.Table, field: pa.Field[Any], path: Path) -> None:
    where, remedy = f"{path}: column '{field.name}'", "write the file with 'tiltbox predict'"
    if table.column_names.count(field.name) != 1:
        raise DataError(where, "is missing or occurs twice", remedy)
    found = table.schema.field(field.name).type
    if _value_type(found) != _value_type(field.type):
        raise DataError(where, f"has the type {found}, not {field.type}", remedy)
    if table[field.name].null_count:
        raise DataError(where, f"has {table[field.name].null_count} missing values", remedy)


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, the same for all string types."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _encoded(strings: Sequence[str] | pa.ChunkedArray[Any]) -> tuple[tuple[str, ...], np.ndarray]:
    """The different strings in order of appearance, and for each row an index into them, int32."""
    if not isinstance(strings, pa.ChunkedArray):
        strings = pa.chunked_array([pa.array(list(strings), pa.string())])
    return as_strings(strings.cast(pa.string()).combine_chunks().dictionary_encode())


def _dictionary(indices: np.ndarray, names: tuple[str, ...]) -> pa.DictionaryArray[Any, Any]:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(list(names), pa.string()))
