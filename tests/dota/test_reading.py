from __future__ import annotations

import pytest

from tiltbox.dota.reading import decoded, list_files, read_bytes, require_class
from tiltbox.errors import DataError


def test_empty_folder(tmp_path):
    assert list_files(tmp_path, (".txt",), "label file") == []


def test_files_are_sorted_and_others_passed_over(tmp_path):
    for name in ("b.TXT", "a.txt", "._a.txt", ".txt", "c.text", "d"):
        (tmp_path / name).touch()
    (tmp_path / "e.txt").mkdir()
    assert [path.name for path in list_files(tmp_path, (".txt",), "label file")] == ["a.txt", "b.TXT"]


def test_two_of_one_name(tmp_path):
    for name in ("a.txt", "a.TXT"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{tmp_path}: contains more than one label file named 'a'; keep one"):
        list_files(tmp_path, (".txt",), "label file")


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="folder not found; check the path"):
        list_files(tmp_path / "none", (".txt",), "label file")


@pytest.mark.parametrize("name", ["none", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read \(\w.*\); check the path"):
        read_bytes(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), (b"\xef\xbb\xbf", ""), (b"\xef\xbb\xbfa\r\n", "a\r\n"), ("ü".encode(), "ü")],
)
def test_text(content, text):
    assert decoded(content, "P1.txt") == text


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff", 1),
        ("ship\n".encode("utf-16"), 1),
        (b"one\ntwo\nk\xf6ln\n", 3),
        (b"\xef\xbb\xbfone\r\nk\xf6ln\r\n", 2),
        (b"one\ncut \xc3", 2),
    ],
)
def test_the_line_that_is_not_text_is_named(content, line):
    with pytest.raises(DataError, match=f"^P1.txt:{line}: is not valid UTF-8; save the file as UTF-8$"):
        decoded(content, "P1.txt")


def test_classes():
    require_class("ship", ("plane", "ship"), "P1.txt:1")
    with pytest.raises(
        DataError, match=r"^P1.txt:1: unknown class 'sihp'; did you mean 'ship'\? \(--dataset"
    ):
        require_class("sihp", ("plane", "ship"), "P1.txt:1")
