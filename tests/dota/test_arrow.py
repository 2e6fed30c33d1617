from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tiltbox.dota.arrow import as_numpy


@pytest.mark.parametrize(
    ("stored", "kind"), [(pa.int32(), np.int32), (pa.float32(), np.float32), (pa.float64(), float)]
)
@pytest.mark.parametrize("chunks", [[], [[]], [[1, 2]], [[1], [], [2, 3]]])
def test_numbers(stored, kind, chunks):
    found = as_numpy(pa.chunked_array(chunks, stored), kind)
    assert found.dtype == kind
    assert found.tolist() == [number for chunk in chunks for number in chunk]


def test_a_part_of_an_array():
    assert as_numpy(pa.array([1, 2, 3], pa.int32()).slice(1), np.int32).tolist() == [2, 3]


def test_the_result_may_be_changed():
    found = as_numpy(pa.array([1.0]), float)
    found += 1
    assert found.tolist() == [2]
