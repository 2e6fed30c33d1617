"""Converts Arrow columns from and to NumPy without Arrow's own methods, which import pandas (0.3 s)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike


def as_numpy(column: pa.Array[Any] | pa.ChunkedArray[Any], kind: DTypeLike) -> np.ndarray:
    """The numbers of a column without missing values, copied, shape (n,).

    >>> as_numpy(pa.chunked_array([[1, 2], [], [3]], pa.int32()), np.int32).tolist()
    [1, 2, 3]
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.empty(0, kind), *(np.from_dlpack(chunk) for chunk in chunks if len(chunk))])


def as_strings(column: pa.DictionaryArray[Any, Any]) -> tuple[tuple[str, ...], np.ndarray]:
    """The different strings of a column without missing values, and for each row an index into them, int32.

    >>> as_strings(pa.array(["b", "a", "b"]).dictionary_encode())
    (('b', 'a'), array([0, 1, 0], dtype=int32))
    """
    strings = cast(list[str], column.dictionary.to_pylist())
    return tuple(strings), as_numpy(column.indices, np.int32)


def from_numpy(values: np.ndarray) -> pa.Array[Any]:
    """A column of numbers, shape (n,), sharing their memory where it is contiguous.

    >>> from_numpy(np.array([1, 2], np.int8)).to_pylist()
    [1, 2]
    """
    values = np.ascontiguousarray(values)
    buffers = [None, pa.py_buffer(values.data)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def from_strings(strings: Sequence[str]) -> pa.Array[Any]:
    """
    >>> from_strings(["a", "é", ""]).to_pylist()
    ['a', 'é', '']
    """
    encoded = [string.encode() for string in strings]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)
