from __future__ import annotations

import numpy as np
import pytest

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.labels import Labels, format_labels, list_labels, parse_labels, read_labels, write_labels
from tiltbox.errors import DataError

LINE = "0 0 9 0 9 5.5 0 5.5 ship 1"


def labels_of(tmp_path, content: bytes, classes=None) -> Labels:
    path = tmp_path / "P0001.txt"
    path.write_bytes(content)
    return read_labels(path, classes)


@pytest.mark.parametrize(
    "content", [b"", b"\n\r\n  \t\n", b"\xef\xbb\xbf", b"imagesource:GoogleEarth\ngsd:0.1\n"]
)
def test_nothing(tmp_path, content):
    labels = labels_of(tmp_path, content)
    assert len(labels) == 0
    assert labels.qboxes.shape == (0, 8) and labels.qboxes.dtype == np.float64
    assert labels.difficult.shape == (0,) and labels.difficult.dtype.kind == "i"


@pytest.mark.parametrize(
    "content",
    [
        LINE,
        f"{LINE}\n",
        f"{LINE}\r\n",
        f"\ufeff{LINE}\n",
        f"  {LINE}  \t\n\n",
        f"\n\n{LINE}",
        LINE.replace(" ", "\t"),
        LINE.replace(" ", "  \t "),
        "0.0 0.00 9. 0e0 +9 5.5 -0 5.50 ship 01",
    ],
)
def test_one_object_however_it_is_laid_out(tmp_path, content):
    labels = labels_of(tmp_path, content.encode())
    assert labels.qboxes.tolist() == [[0, 0, 9, 0, 9, 5.5, 0, 5.5]]
    assert labels.classes == ("ship",)
    assert labels.difficult.tolist() == [1]


def test_without_difficulty(tmp_path):
    assert labels_of(tmp_path, b"0 0 9 0 9 5 0 5 ship\n0 0 9 0 9 5 0 5 plane 2\n").difficult.tolist() == [
        0,
        2,
    ]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_header_is_kept(tmp_path, newline):
    lines = [b"acquisition dates:2018-03-01", b"imagesource:Google Earth", b"gsd:null", LINE.encode()]
    labels = labels_of(tmp_path, newline.join(lines))
    assert labels.header == ("acquisition dates:2018-03-01", "imagesource:Google Earth", "gsd:null")
    assert len(labels) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0 9 0 9 5 0 5", "8 words"),
        (f"{LINE} 0", "11 words"),
        ("0 0 9 0 9 5 0 5 tennis court 0", "11 words"),
        ("0,0,9,0,9,5,0,5,ship,0", "1 words"),
        ("0 0 9 0 9 5 0 x5 ship 0", "'x5'"),
        ("0 0 9 0 9 5 0 nan ship 0", "'nan'"),
        ("0 0 9 0 9 5 0 -inf ship 0", "'-inf'"),
        ("0 0 9 0 9 5 0 1e999 ship 0", "'1e999'"),
        ("0 0 9 0 9 5 0 1_0 ship 0", "'1_0'"),
        ("0 0 9 0 9 5 0 5 ship 0.0", "'0.0'"),
        ("0 0 9 0 9 5 0 5 ship -1", "'-1'"),
        ("0 0 9 0 9 5 0 5 ship easy", "'easy'"),
        ("0 0 9 0 9 5 0 5 ship 3", "difficulty '3' is not 0, 1 or 2"),
        ("0 0 9 0 9 5 0 5 ship 010", "'010'"),
        ("0 0 9 0 9 5 0 5 ship ²", "'²'"),
        (f"0 0 9 0 9 5 0 5 ship {'9' * 20}", "'99999999999999999999'"),
        (f"0 0 9 0 9 5 0 5 ship {'9' * 5000}", "'999"),
        ("0 0 9 0 9 5 0 1e200 ship 0", "coordinate '1e200' is beyond 10,000,000 pixels"),
        ("0 0 9 0 9 5 0 -10000000.5 ship 0", "coordinate '-10000000.5' is beyond"),
        ("ship 0 0 9 0 9 5 0 5 0", "'ship'"),
    ],
)
def test_malformed_line_is_named(tmp_path, line, problem):
    with pytest.raises(DataError, match=r"P0001\.txt:3: ") as error:
        labels_of(tmp_path, f"gsd:1\n{LINE}\n{line}\n".encode())
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("storage-tnak", "did you mean 'storage-tank'"),
        ("Plane", "mean 'plane'"),
        ("qqqq", "choose one of plane,"),
    ],
)
def test_unknown_class(tmp_path, name, remedy):
    content = f"0 0 9 0 9 5 0 5 {name} 0".encode()
    assert labels_of(tmp_path, content).classes == (name,)
    with pytest.raises(DataError, match=remedy):
        labels_of(tmp_path, content, DOTA_V1_CLASSES)


def test_a_class_that_other_datasets_have(tmp_path):
    with pytest.raises(DataError, match=r"'container-crane'.*\(--dataset names a dataset with other classes"):
        labels_of(tmp_path, LINE.replace("ship", "container-crane").encode(), DOTA_V1_CLASSES)


def test_the_largest_coordinates(tmp_path):
    labels = labels_of(tmp_path, b"-1e7 1e7 9 0 9 5.5 0 5.5 ship 1")
    assert labels.qboxes[0, :2].tolist() == [-1e7, 1e7]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (LINE.encode("utf-16"), 1),
        (b"\xff\xd8\xff\xe0binary", 1),
        (f"gsd:1\n{LINE} \xfc".encode("latin-1"), 2),
    ],
)
def test_no_text(tmp_path, content, line):
    with pytest.raises(DataError, match=f"P0001.txt:{line}: is not valid UTF-8"):
        labels_of(tmp_path, content)


def test_label_files_of_a_folder(tmp_path):
    assert list_labels(tmp_path) == []
    for name in ("P2.txt", "P1.TXT", "._P1.txt", "notes.md"):
        (tmp_path / name).touch()
    assert [path.name for path in list_labels(tmp_path)] == ["P1.TXT", "P2.txt"]
    with pytest.raises(DataError, match="folder not found"):
        list_labels(tmp_path / "none")


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / name)


def test_rows_by_mask_and_by_index():
    labels = Labels(np.arange(24.0).reshape(3, 8), ("a", "b", "c"), np.array([0, 1, 2]))
    for rows in (np.array([True, False, True]), np.array([0, 2])):
        chosen = labels[rows]
        assert chosen.classes == ("a", "c")
        assert chosen.qboxes[:, 0].tolist() == [0, 16]
        assert chosen.difficult.tolist() == [0, 2]


def test_nothing_is_written_as_an_empty_file(tmp_path):
    write_labels(tmp_path / "a.txt", Labels(np.empty((0, 8)), (), np.empty(0, dtype=int)))
    assert (tmp_path / "a.txt").read_bytes() == b""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12.0"),
        (-3.5, "-3.5"),
        (1104.25, "1104.25"),
        (1104.37 - 1024, "80.37"),
        (-1e-7, "0.0"),
        (-0.0, "0.0"),
        (2 / 3, "0.6667"),
        (29200, "29200.0"),
    ],
)
def test_written_coordinates(value, text):
    labels = Labels(np.full((1, 8), float(value)), ("ship",), np.array([0]))
    assert format_labels(labels) == " ".join([text] * 8) + " ship 0\n"


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    qboxes = rng.integers(-(10**6), 3 * 10**8, (50, 8)) / 10**4
    written = Labels(qboxes, ("ship", "plane") * 25, rng.integers(0, 3, 50), ("gsd:0.5",))
    write_labels(tmp_path / "a.txt", written)
    assert b"\r" not in (tmp_path / "a.txt").read_bytes()
    read = read_labels(tmp_path / "a.txt")
    assert np.array_equal(read.qboxes, qboxes)
    assert (read.classes, read.header) == (written.classes, written.header)
    assert read.difficult.tolist() == written.difficult.tolist()


def test_two_ways_to_write_a_class(tmp_path):
    labels = parse_labels("0 0 9 0 9 5 0 5 cafe\u0301 0\n", "P1.txt", ["café"])
    assert labels.classes == ("café",)
