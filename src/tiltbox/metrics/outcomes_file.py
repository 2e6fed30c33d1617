"""``outcomes.parquet``: the outcome of every detection of a run, enough to resample images without labels.

A row is a detection (those of a class by falling score) or an object that counts:

===========  =================================================================
column       content
===========  =================================================================
``class``    string
``image``    string
``matched``  int8, see :class:`tiltbox.metrics.bootstrap.Outcomes`; -1 for an object
``claimed``  int8, the same; 0 for an object
===========  =================================================================

The names of all images and of all classes, in order, are in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiltbox.dota.arrow import as_numpy, as_strings, from_numpy, from_strings
from tiltbox.errors import DataError
from tiltbox.files.atomic import atomic_file
from tiltbox.metrics.bootstrap import Outcomes

OBJECT = -1  # in place of a number of thresholds
_AGAIN = "run 'tiltbox evaluate' again"


def write_outcomes(path: Path, images: Sequence[str], outcomes: Mapping[str, Outcomes]) -> None:
    """Write a parquet file, whole or not at all; the same outcomes give the same bytes."""
    tables = [_rows(number, each) for number, each in enumerate(outcomes.values())]
    columns = [np.concatenate(column) for column in zip(*tables, strict=True)]
    names = {"class": list(outcomes), "image": list(images)}
    encoded = [
        pa.DictionaryArray.from_arrays(from_numpy(numbers), from_strings(names[key]))
        for key, numbers in zip(names, columns[:2], strict=True)
    ]
    arrays = [*encoded, *map(from_numpy, columns[2:])]
    table = pa.Table.from_arrays(arrays, names=[*names, "matched", "claimed"])
    table = table.replace_schema_metadata({"names": json.dumps(names, ensure_ascii=False)})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_outcomes(path: Path) -> tuple[tuple[str, ...], dict[str, Outcomes]]:
    """The names of the images, and the outcomes of each class.

    Raises:
        DataError: The file does not exist or does not contain outcomes.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        names = json.loads(table.schema.metadata[b"names"])
        image, label = (_numbers(table[key], names[key]) for key in ("image", "class"))
        matched, claimed = (as_numpy(table[key], np.int8) for key in ("matched", "claimed"))
    except FileNotFoundError:
        raise DataError(path, "file not found", _AGAIN) from None
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise DataError(path, f"contains no outcomes ({str(error).splitlines()[0]})", _AGAIN) from None
    found = {}
    for number, name in enumerate(names["class"]):
        objects = (label == number) & (matched == OBJECT)
        detections = (label == number) & ~objects
        found[name] = Outcomes(image[detections], matched[detections], claimed[detections], image[objects])
    return tuple(names["image"]), found


def _rows(number: int, each: Outcomes) -> tuple[np.ndarray, ...]:
    """Columns of class, image, matched and claimed: detections, then objects."""
    objects = len(each.findable)
    return (
        np.full(len(each.images) + objects, number, np.int32),
        np.concatenate([each.images, each.findable]),
        np.concatenate([each.matched, np.full(objects, OBJECT, np.int8)]),
        np.concatenate([each.claimed, np.zeros(objects, np.int8)]),
    )


def _numbers(column: pa.ChunkedArray[Any], names: Sequence[str]) -> np.ndarray:
    """The index of each string in ``names``, int32."""
    place = {name: number for number, name in enumerate(names)}
    strings, rows = as_strings(column.cast(pa.string()).combine_chunks().dictionary_encode())
    return np.array([place[string] for string in strings], dtype=np.int32)[rows]
