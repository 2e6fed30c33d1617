from __future__ import annotations

import numpy as np
import pytest

from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import DataError
from tiltbox.stages.scored import label_files, look_normalised, read_scored

SHIP = "0 0 10 0 10 10 0 10"
NFC, NFD = "caf\u00e9", "cafe\u0301"  # the same letters, written in two ways


def results(folder, *lines: str):
    folder.mkdir()
    (folder / "Task1_ship.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("P1__1024__0___824", "it is a patch: merge the patches first"),
        ("P9", "give the labels of all images"),
        ("P1.png", "name the image without its extension: P1$"),
        ("P1.TIFF", "name the image without its extension: P1$"),
        ("images/P1.png", "name the image without its extension: P1$"),
        ("2", "the images have leading zeros in their names, which this file has lost"),
        ("3", "give the labels of all images"),
    ],
)
def test_images_without_labels(tmp_path, name, remedy):
    with pytest.raises(
        DataError, match=rf"Task1_ship\.txt:2: there are no labels for image '{name}'; {remedy}"
    ):
        read_scored(results(tmp_path / "t", f"P1 0.9 {SHIP}", f"{name} 0.8 {SHIP}"), ["ship"], {"P1", "0002"})


@pytest.mark.parametrize("labelled", [NFC, NFD])
@pytest.mark.parametrize("named", [NFC, NFD])
def test_two_ways_to_write_the_same_letters(tmp_path, labelled, named):
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / f"{labelled}.txt").write_text(f"{SHIP} ship 0\n")
    files = label_files(tmp_path / "labelTxt")
    found = read_scored(results(tmp_path / "t", f"{named} 0.9 {SHIP}"), ["ship"], files)
    assert set(files) == {NFC} == set(found["ship"].names)


@pytest.mark.parametrize(
    ("qbox", "expected"),
    [("0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2", True), ("0 0 1 0 1 1 0 1", True), (SHIP, False)],
)
def test_coordinates_that_look_normalised(tmp_path, caplog, qbox, expected):
    read_scored(results(tmp_path / "t", f"P1 0.9 {qbox}", f"P1 0.8 {qbox}"), ["ship"], {"P1"})
    assert any("all coordinates are between 0 and 1" in message for message in caplog.messages) == expected


def test_no_detections_do_not_look_normalised():
    none = ClassDetections.of((), np.empty(0), np.empty((0, 8)))
    assert not look_normalised({"ship": none}) and not look_normalised({})
