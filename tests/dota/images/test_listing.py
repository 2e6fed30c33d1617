"""Which files of a folder are images, and which are passed over."""

from __future__ import annotations

import pytest

from tiltbox.dota.images.listing import list_images, passed_over, warn_of_passed_over
from tiltbox.errors import DataError


def test_folder_without_images(tmp_path):
    assert list_images(tmp_path) == []


def test_images_are_sorted_and_other_files_passed_over(tmp_path):
    for name in (
        "b.PNG",
        "a.jpeg",
        "c.tif",
        "d.TIFF",
        "e.bmp",
        "f.jpg",
        "Thumbs.db",
        "g.txt",
        "._b.PNG",
        "h",
    ):
        (tmp_path / name).touch()
    (tmp_path / "i.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == [
        "a.jpeg",
        "b.PNG",
        "c.tif",
        "d.TIFF",
        "e.bmp",
        "f.jpg",
    ]


def test_two_images_of_one_name(tmp_path):
    (tmp_path / "P1.png").touch()
    (tmp_path / "P1.jpg").touch()
    with pytest.raises(DataError, match="more than one image named 'P1'"):
        list_images(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="folder not found"):
        list_images(tmp_path / "images")


def test_images_that_are_passed_over_are_named(tmp_path, caplog):
    for name in (
        "a.png",
        "b.webp",
        "c.JP2",
        "notes.txt",
        ".hidden.gif",
        "part2/d.png",
        ".cache/e.png",
        "f.sid",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert passed_over(tmp_path) == ["b.webp", "c.JP2", "f.sid", "part2/d.png"]
    warn_of_passed_over(tmp_path)
    assert caplog.messages == [
        f"{tmp_path}: skipped b.webp, c.JP2, f.sid, part2/d.png: only PNG, JPEG, TIFF and BMP files directly"
        " in that folder are read"
    ]
    caplog.clear()
    for number in range(9):
        (tmp_path / f"part2/{number}.png").touch()
    warn_of_passed_over(tmp_path)
    assert "part2/0.png, part2/1.png and 8 more: only" in caplog.text


def test_nothing_is_passed_over(tmp_path, caplog):
    (tmp_path / "a.png").touch()
    warn_of_passed_over(tmp_path)
    assert caplog.messages == []
