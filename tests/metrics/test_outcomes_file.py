from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltbox.errors import DataError
from tiltbox.metrics.bootstrap import Outcomes
from tiltbox.metrics.outcomes_file import read_outcomes, write_outcomes

IMAGES = ("P2", "café", "P1")


def some(detections: int, objects: int, seed: int) -> Outcomes:
    draw = np.random.default_rng(seed)
    matched = draw.integers(0, 11, detections, dtype=np.int8)
    claimed = np.minimum(draw.integers(-1, 11, detections, dtype=np.int8), matched)
    images = [draw.integers(0, len(IMAGES), count, dtype=np.int32) for count in (detections, objects)]
    return Outcomes(images[0], matched, claimed, images[1])


def same(one: Outcomes, other: Outcomes) -> bool:
    return all(
        left.dtype == right.dtype and np.array_equal(left, right)
        for left, right in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_they_come_back_as_they_were(tmp_path):
    counts = {"ship": (9, 4), "no-objects": (3, 0), "nothing": (0, 0), "plane": (0, 5)}
    given = {name: some(*each, seed=7) for name, each in counts.items()}
    write_outcomes(tmp_path / "o.parquet", IMAGES, given)
    images, found = read_outcomes(tmp_path / "o.parquet")
    assert images == IMAGES and list(found) == list(given)
    assert all(same(found[name], given[name]) for name in given)
    before = (tmp_path / "o.parquet").read_bytes()
    write_outcomes(tmp_path / "o.parquet", IMAGES, found)
    assert (tmp_path / "o.parquet").read_bytes() == before


def test_nothing_at_all(tmp_path):
    write_outcomes(tmp_path / "o.parquet", IMAGES, {"ship": some(0, 0, 0)})
    assert read_outcomes(tmp_path / "o.parquet")[0] == IMAGES


def test_files_that_are_not_outcomes(tmp_path):
    with pytest.raises(DataError, match=r"o\.parquet: file not found; run 'tiltbox evaluate' again"):
        read_outcomes(tmp_path / "o.parquet")
    (tmp_path / "o.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="contains no outcomes"):
        read_outcomes(tmp_path / "o.parquet")
    pq.write_table(pa.table({"class": ["ship"]}), tmp_path / "o.parquet")
    with pytest.raises(DataError, match="contains no outcomes"):
        read_outcomes(tmp_path / "o.parquet")
