from __future__ import annotations

import random
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tiltbox.dota.task1 import (
    ClassDetections,
    format_task1,
    no_detections,
    parse_task1,
    read_task1,
    write_task1,
)
from tiltbox.errors import DataError

CLASSES = ("plane", "large-vehicle", "ship")
LINE = "P0006 0.25 1 2 3 4 5 6 7 8"


def detections(*scores: float) -> ClassDetections:
    rows = range(len(scores))
    corners = np.arange(8 * len(scores), dtype=float).reshape(-1, 8)
    return ClassDetections.of([f"P{row}" for row in rows], np.array(scores, dtype=float), corners)


def written(folder, **found: ClassDetections):
    folder.mkdir()
    write_task1(folder, ((name, found.get(name, no_detections())) for name in CLASSES))
    return folder


def test_nothing(tmp_path):
    folder = written(tmp_path / "merge")
    files = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    assert files == {f"Task1_{name}.txt": b"" for name in CLASSES}
    for source in (folder, folder / "Task1.zip"):
        read = read_task1(source, CLASSES)
        assert list(read) == list(CLASSES)
        for found in read.values():
            assert len(found) == 0 and found.qboxes.shape == (0, 8) and found.scores.shape == (0,)


def test_written_and_read(tmp_path):
    folder = written(tmp_path / "merge", ship=detections(0.9, 0.5), plane=detections(0.25))
    for source in (folder, folder / "Task1.zip"):
        read = read_task1(source, CLASSES)
        assert {name: len(found) for name, found in read.items()} == {
            "plane": 1,
            "large-vehicle": 0,
            "ship": 2,
        }
        assert read["ship"].images == ["P0", "P1"]
        assert read["ship"].scores.tolist() == [0.9, 0.5]
        assert read["ship"].qboxes.tolist() == detections(0.9, 0.5).qboxes.tolist()


def test_the_zip_holds_the_files_flat_and_is_the_same_every_time(tmp_path):
    first = written(tmp_path / "a", ship=detections(0.5)) / "Task1.zip"
    second = written(tmp_path / "b", ship=detections(0.5)) / "Task1.zip"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == [f"Task1_{name}.txt" for name in CLASSES]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("Task1_ship.txt") == (tmp_path / "a" / "Task1_ship.txt").read_bytes()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0.00"),
        (-0.0, "0.00"),
        (-0.004, "0.00"),
        (-0.006, "-0.01"),
        (1.005, "1.00"),
        (12345.678, "12345.68"),
    ],
)
def test_coordinates(number, text):
    line = format_task1(ClassDetections.of(["P1"], np.array([0.5]), np.full((1, 8), number)))
    assert b"".join(line) == f"P1 0.500000000{f' {text}' * 8}\n".encode()


def test_float32_scores_stay_apart():
    low = np.nextafter(np.float32(0.05), np.float32(1), dtype=np.float32)
    for pair in ([0.05, low], [np.nextafter(np.float32(1), np.float32(0)), 1.0]):
        scores = np.array(pair, dtype=np.float32).astype(np.float64)
        images, corners = ("a", "b"), np.zeros((2, 8))
        read = parse_task1(b"".join(format_task1(ClassDetections.of(images, scores, corners))), "x")
        assert read.scores[0] < read.scores[1]
        assert np.array_equal(read.scores.astype(np.float32), scores.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (LINE, [1]),
        (f"{LINE}\n", [1]),
        (f"{LINE}\r\n{LINE}\r\n", [1, 2]),
        (f"\n  \n{LINE}\n\n{LINE}", [3, 5]),
        (f"\ufeff{LINE}", [1]),
        (f"  {LINE.replace(' ', '  ')} \t\n", [1]),
        (LINE.replace(" ", "\t"), [1]),
    ],
)
def test_layouts(content, lines):
    found = parse_task1(content.encode(), "Task1_ship.txt")
    assert [found.where(row) for row in range(len(found))] == [f"Task1_ship.txt:{line}" for line in lines]
    assert set(found.images) == {"P0006"} and set(found.scores.tolist()) == {0.25}
    assert found.qboxes.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]] * len(lines)


def test_numbers_that_are_not_finite_are_read():
    found = parse_task1(b"P1 nan inf -inf 3 4 5 6 7 8", "x")
    assert np.isnan(found.scores[0]) and found.qboxes[0, :2].tolist() == [np.inf, -np.inf]


def test_coordinates_that_no_image_has_count_as_infinite():
    found = parse_task1(b"P1 2e7 1e7 -1e7 10000001 -1e200 1.7e308 1e999 7 nan", "x")
    assert found.scores.tolist() == [2e7]
    assert found.qboxes[0, :7].tolist() == [1e7, -1e7, np.inf, -np.inf, np.inf, np.inf, 7]
    assert np.isnan(found.qboxes[0, 7])


def test_underscores_in_names_of_images():
    found = parse_task1(b"P_1__1024__0___0 0.5 1 2 3 4 5 6 7 8\n", "x")
    assert found.images == ["P_1__1024__0___0"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("P0006", "has 1 words"),
        (f"{LINE} 9", "has 11 words"),
        ("P0006 0.5 1 2 3 4 5 6 7", "has 9 words"),
        ("P0006 high 1 2 3 4 5 6 7 8", "'high' is not a number"),
        ("P0006 0.5 1 2 3 4 5 6 7 8,", "'8,' is not a number"),
        ("P0006 0,5 1 2 3 4 5 6 7 8", "'0,5' is not a number"),
        ("P_0_006 0.5 1_0 2 3 4 5 6 7 8", "'1_0' is not a number"),
    ],
)
def test_malformed_lines(tmp_path, line, problem):
    path = tmp_path / "Task1_ship.txt"
    for content in (f"{LINE}\n\n{line}\n{LINE}\n", f"{LINE}\n\n{line}\n{line}\n"):
        path.write_text(content)
        with pytest.raises(DataError, match=f"{path}:3: .*{problem}"):
            read_task1(tmp_path, CLASSES)


def test_not_text(tmp_path):
    (tmp_path / "Task1_ship.txt").write_bytes(f"{LINE}\nK\xf6ln".encode("latin-1"))
    with pytest.raises(DataError, match=r"Task1_ship\.txt:2: is not valid UTF-8"):
        read_task1(tmp_path, CLASSES)


@pytest.mark.parametrize("content", [f"{LINE}\n{LINE}\n{LINE}\n", f"\n{LINE}\n\n{LINE}\n\n\n{LINE}\n"])
def test_some_rows_know_their_lines(content):
    found = parse_task1(content.encode(), "a.txt")
    every = [found.where(row) for row in range(3)]
    for rows in (np.array([2, 0]), np.array([True, False, True])):
        part = found.take(rows)
        assert len(part) == 2 and part.images == ["P0006"] * 2
        assert {part.where(0), part.where(1)} == {every[0], every[2]}
    assert found.take(np.array([2, 0])).where(0) == every[2]


def test_a_class_without_a_file_has_no_detections(tmp_path):
    (tmp_path / "Task1_ship.txt").write_text(LINE)
    (tmp_path / "readme.txt").write_text("not a result")
    assert [len(found) for found in read_task1(tmp_path, CLASSES).values()] == [0, 0, 1]


@pytest.mark.parametrize(("name", "remedy"), [("shipp", "did you mean 'ship'"), ("x", "choose one of plane")])
def test_unknown_classes(tmp_path, name, remedy):
    (tmp_path / f"Task1_{name}.txt").write_text(LINE)
    with pytest.raises(DataError, match=f"unknown class '{name}'.*{remedy}"):
        read_task1(tmp_path, CLASSES)


def test_sources_that_hold_nothing(tmp_path):
    (tmp_path / "Task1_ship.txt").mkdir()
    with pytest.raises(
        DataError, match=r"contains no Task1_<class>\.txt; give a folder or zip of Task1_<class>"
    ):
        read_task1(tmp_path, CLASSES)
    with pytest.raises(DataError, match="folder or zip not found"):
        read_task1(tmp_path / "none", CLASSES)
    (tmp_path / "file").write_text(LINE)
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        read_task1(tmp_path / "file", CLASSES)


def test_a_zip_of_a_folder(tmp_path):
    path = tmp_path / "Task1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Task1/", "")
        archive.writestr("Task1/Task1_ship.txt", LINE)
        archive.writestr("Task1/Task1_plane.txt/", "")
        archive.writestr("__MACOSX/Task1/._Task1_ship.txt", b"\xff")
    assert len(read_task1(path, CLASSES)["ship"]) == 1


def test_errors_in_a_zip(tmp_path):
    path = tmp_path / "Task1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Task1_ship.txt", "P1")
    with pytest.raises(DataError, match=r"Task1\.zip/Task1_ship\.txt:1: has 1 words"):
        read_task1(path, CLASSES)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Task1_ship.txt", LINE)
        archive.writestr("old/Task1_ship.txt", LINE)
    with pytest.raises(DataError, match=r"Task1_ship\.txt occurs twice"):
        read_task1(path, CLASSES)


def spoilt(path, spoil) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Task1_ship.txt", f"{LINE}\n" * 100)
    data = bytearray(path.read_bytes())
    spoil(data)
    path.write_bytes(data)


def flip(data: bytearray) -> None:
    data[50] ^= 0xFF  # in the compressed lines


def encrypt(data: bytearray) -> None:
    data[6] |= 1  # the flag in the member's header
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # and in the directory's


@pytest.mark.parametrize(("spoil", "problem"), [(flip, r"\(.+\)"), (encrypt, r"\(.*encrypted.*\)")])
def test_spoilt_zips(tmp_path, spoil, problem):
    spoilt(tmp_path / "Task1.zip", spoil)
    with pytest.raises(DataError, match=rf"Task1\.zip: cannot be read {problem}; write it again"):
        read_task1(tmp_path / "Task1.zip", CLASSES)


def test_zips_with_any_byte_changed(tmp_path):
    rng = random.Random(0)
    for _ in range(300):
        spoilt(
            tmp_path / "a.zip", lambda data: data.__setitem__(rng.randrange(len(data)), rng.randrange(256))
        )
        with suppress(DataError):
            read_task1(tmp_path / "a.zip", CLASSES)


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "Task1_ship.txt").write_text(LINE)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"Task1_ship\.txt: cannot be read \(Permission denied\); check"):
        read_task1(tmp_path, CLASSES)
