"""Converts Arrow columns from and to NumPy without Arrow's own methods, which import pandas (0.3 s)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike


def as_numpy(column: pa.Array | pa.ChunkedArray, kind: DTypeLike) -> np.ndarray:
    """The numbers of a column without missing values, copied, shape (n,).

    >>> as_numpy(pa.chunked_array([[1, 2], [], [3]], pa.int32()), np.int32).tolist()
    [1, 2, 3]
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return np.concatenate([np.empty(0, kind), *(np.from_dlpack(chunk) for chunk in chunks if len(chunk))])


def from_numpy(values: np.ndarray) -> pa.Array:
    """A column of numbers, shape (n,), sharing their memory where it is contiguous.

    >>> from_numpy(np.array([1, 2], np.int8)).to_pylist()
    [1, 2]
    """
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def from_strings(strings: Sequence[str]) -> pa.Array:
    """
    >>> from_strings(["a", "é", ""]).to_pylist()
    ['a', 'é', '']
    """
    encoded = [string.encode() for string in strings]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)
