from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiltbox.dota.detections import Detections, read_detections, write_detections
from tiltbox.errors import DataError

TYPES = {
    "image": "string",
    "x": "int32",
    "y": "int32",
    "size": "int32",
    "class": "dictionary<values=string, indices=int32, ordered=0>",
    "score": "float",
    "cx": "float",
    "cy": "float",
    "w": "float",
    "h": "float",
    "theta": "float",
}


def some_detections(count: int = 3) -> Detections:
    rows = np.arange(count)
    return Detections.from_columns(
        image=[f"P{row % 2}" for row in rows],
        x=rows * 824,
        y=rows,
        size=np.full(count, 1024),
        classes=["ship" if row % 2 else "large-vehicle" for row in rows],
        score=rows / 10,
        rboxes=np.arange(5 * count).reshape(count, 5) / 8,
    )


def some_table(**changes: pa.Array | None) -> pa.Table:
    """A correct table of two rows, with some columns replaced or (None) left out."""
    numbers = {name: pa.array([1, 2], pa.int32()) for name in ("x", "y", "size")}
    numbers |= {name: pa.array([1, 2], pa.float32()) for name in ("score", "cx", "cy", "w", "h", "theta")}
    strings = {"image": pa.array(["a", "b"]), "class": pa.array(["ship", "ship"]).dictionary_encode()}
    columns = {**strings, **numbers, **changes}
    return pa.table({name: column for name, column in columns.items() if column is not None})


@pytest.mark.parametrize("count", [0, 1, 3])
def test_written_and_read(tmp_path, count):
    path = tmp_path / "detections.parquet"
    written = some_detections(count)
    write_detections(path, written)
    read = read_detections(path)
    assert len(read) == count
    assert (read.image_names, read.class_names) == (written.image_names, written.class_names)
    for name in ("image", "x", "y", "size", "label", "score", "rboxes"):
        before, after = getattr(written, name), getattr(read, name)
        assert after.dtype == before.dtype and np.array_equal(after, before), name
    assert read.rboxes.shape == (count, 5)


@pytest.mark.parametrize("count", [0, 3])
def test_the_columns_and_their_types(tmp_path, count):
    write_detections(tmp_path / "d.parquet", some_detections(count))
    schema = pq.read_schema(tmp_path / "d.parquet")
    assert {field.name: str(field.type) for field in schema} == TYPES


def test_the_values_as_pyarrow_reads_them(tmp_path):
    write_detections(tmp_path / "d.parquet", some_detections(2))
    rows = pq.read_table(tmp_path / "d.parquet").to_pylist()
    assert rows[1] == {
        "image": "P1", "x": 824, "y": 1, "size": 1024, "class": "ship", "score": pytest.approx(0.1),
        "cx": 0.625, "cy": 0.75, "w": 0.875, "h": 1.0, "theta": 1.125,
    }  # fmt: skip


def test_names_are_numbered_in_order_of_appearance():
    found = some_detections(3)
    assert (found.image_names, found.image.tolist()) == (("P0", "P1"), [0, 1, 0])
    assert (found.class_names, found.label.tolist()) == (("large-vehicle", "ship"), [0, 1, 0])


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="columns of one length"):
        Detections.from_columns(
            image=["a"], x=[0], y=[0], size=[9], classes=["ship"], score=[1, 2], rboxes=np.zeros((1, 5))
        )


@pytest.mark.parametrize(
    "encode",
    [
        lambda strings: strings,
        lambda strings: strings.cast(pa.large_string()),
        lambda strings: strings.dictionary_encode(),
        lambda strings: strings.cast(pa.dictionary(pa.int8(), pa.large_string())),
    ],
)
def test_strings_of_every_kind(tmp_path, encode):
    table = some_table(
        **{"image": encode(pa.array(["a", "b"])), "class": encode(pa.array(["ship", "harbor"]))}
    )
    pq.write_table(table, tmp_path / "d.parquet")
    read = read_detections(tmp_path / "d.parquet")
    assert (read.image_names, read.class_names) == (("a", "b"), ("ship", "harbor"))


def test_row_groups_with_dictionaries_of_their_own(tmp_path):
    parts = [some_table(**{"class": pa.array(names).dictionary_encode()}) for names in ("ab", "bc")]
    with pq.ParquetWriter(tmp_path / "d.parquet", parts[0].schema) as writer:
        for part in parts:
            writer.write_table(part)
    read = read_detections(tmp_path / "d.parquet")
    assert [read.class_names[label] for label in read.label] == ["a", "b", "b", "c"]


def test_other_columns_and_another_order_do_not_matter(tmp_path):
    table = some_table(extra=pa.array([1, 2]))
    pq.write_table(table.select(sorted(table.column_names)), tmp_path / "d.parquet")
    assert len(read_detections(tmp_path / "d.parquet")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta": None}, "column 'theta': is missing"),
        ({"class": None}, "column 'class': is missing"),
        ({"score": pa.array([1.0, 2.0])}, "column 'score': has the type double, not float"),
        ({"x": pa.array([1, 2])}, "column 'x': has the type int64, not int32"),
        ({"x": pa.array(["1", "2"])}, "column 'x': has the type string, not int32"),
        ({"class": pa.array([1, 2], pa.int32())}, "column 'class': has the type int32"),
        ({"image": pa.array([1, 2])}, "column 'image': has the type int64, not string"),
        ({"score": pa.array([1, None], pa.float32())}, "column 'score': has 1 missing values"),
        ({"class": pa.array([None, "ship"]).dictionary_encode()}, "column 'class': has 1 missing values"),
        ({"image": pa.array(["a", "P 1"])}, "column 'image': the name 'P 1' is empty or contains whitespace"),
        ({"image": pa.array(["a", "b\u2003c\n"])}, "column 'image': the name 'b.*c.n' is empty or contains"),
        ({"image": pa.array(["a", ""])}, "column 'image': the name '' is empty or contains whitespace"),
    ],
)
def test_bad_columns(tmp_path, changes, message):
    pq.write_table(some_table(**changes), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=message) as caught:
        read_detections(tmp_path / "d.parquet")
    assert str(tmp_path / "d.parquet") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"P0001 0.5 0 0", b"PAR1", b"PAR1\x00\x00\x00\x00PAR1"])
def test_not_parquet(tmp_path, content):
    (tmp_path / "d.parquet").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_detections(tmp_path / "d.parquet")


def test_a_truncated_file(tmp_path):
    write_detections(tmp_path / "d.parquet", some_detections())
    content = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "d.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_detections(tmp_path / "d.parquet")


def test_no_file(tmp_path):
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(DataError, match="file not found"):
            read_detections(path)
