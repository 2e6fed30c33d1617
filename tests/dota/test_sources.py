from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltbox.dota.images.pixels import write_png
from tiltbox.dota.sources import label_files, read_sources
from tiltbox.errors import DataError

SHIP = "1 1 5 1 5 9 1 9 ship 0\n"


def add(folder: Path, name: str, labels: str | None = SHIP, size: tuple[int, int] = (9, 7)) -> Path:
    """Add an image to ``folder``, and a label file unless ``labels`` is None."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_png(folder / "images" / f"{name}.png", np.zeros((size[1], size[0], 3), np.uint8))
    if labels is not None:
        (folder / "labelTxt").mkdir(exist_ok=True)
        (folder / "labelTxt" / f"{name}.txt").write_text(labels)
    return folder


def refuses(message: str, *folders: Path, classes: tuple[str, ...] | None = None) -> None:
    with pytest.raises(DataError, match=message):
        read_sources(folders, classes)


def test_no_folders():
    refuses("sources: no images found; give folders with images/")


def test_no_images(tmp_path):
    (tmp_path / "images").mkdir()
    refuses(f"{tmp_path}: no images found", tmp_path)


def test_no_folder_of_images(tmp_path):
    refuses("images: folder not found", tmp_path)


def test_images_and_labels(tmp_path):
    add(tmp_path / "train", "P1", SHIP * 2)
    add(tmp_path / "train", "P0", "", (20, 10))
    add(tmp_path / "val", "P2")
    found = read_sources([tmp_path / "train", tmp_path / "val"])
    assert [(each.image.name, each.width, each.height, len(each.labels)) for each in found] == [
        ("P0.png", 20, 10, 0),
        ("P1.png", 9, 7, 2),
        ("P2.png", 9, 7, 1),
    ]


def test_without_labels(tmp_path):
    assert [each.labels for each in read_sources([add(tmp_path, "P1", labels=None)])] == [None]


@pytest.mark.parametrize("missing", [1, 5])
def test_image_without_label_file(tmp_path, missing):
    add(tmp_path, "P0")
    for number in range(missing):
        add(tmp_path, f"Q{number}", labels=None)
    listed = "Q0, Q1, Q2 and 2 more" if missing == 5 else "Q0"
    refuses(f"labelTxt: no label file for image {listed};", tmp_path)


def test_label_file_without_image(tmp_path):
    (add(tmp_path, "P1") / "labelTxt/P7.txt").touch()
    refuses("images: no image for label file P7;", tmp_path)


def test_hidden_label_files_are_passed_over(tmp_path):
    """Such files are made by macOS."""
    (add(tmp_path, "P1") / "labelTxt/._P1.txt").touch()
    assert len(read_sources([tmp_path])) == 1


def test_extension_in_capitals(tmp_path):
    (add(tmp_path, "P1") / "labelTxt/P1.txt").rename(tmp_path / "labelTxt/P1.TXT")
    assert len(read_sources([tmp_path])[0].labels) == 1


def test_label_folder_of_another_name(tmp_path):
    (add(tmp_path, "P1", labels=None) / "labelTxt-v1.0").mkdir()
    refuses("contains labelTxt-v1.0/ but no labelTxt/", tmp_path)


def test_only_some_folders_with_labels(tmp_path):
    folders = add(tmp_path / "train", "P1"), add(tmp_path / "test", "P2", labels=None)
    refuses("test: has no labelTxt/, but another source has", *folders)


def test_same_image_name_in_two_folders(tmp_path):
    folders = add(tmp_path / "train", "P1"), add(tmp_path / "val", "P1")
    refuses(r"val/images/P1\.png: there is an image of that name in .*train/images", *folders)


def test_same_folder_twice(tmp_path):
    refuses("give each source once", add(tmp_path / "train", "P1"), tmp_path / "train/../train")


def test_malformed_label(tmp_path):
    refuses(r"P1\.txt:3: .*'x'", add(tmp_path, "P1", f"gsd:1\n{SHIP}{SHIP.replace('5', 'x')}"))


def test_unknown_class(tmp_path):
    refuses(r"P1\.txt:1: unknown class 'ship'", add(tmp_path, "P1"), classes=("plane",))


def test_whitespace_in_an_image_name(tmp_path):
    refuses(r"P 2\.png: has whitespace in its name", add(tmp_path, "P 2"))


def test_label_files_of_no_image(tmp_path):
    assert label_files(tmp_path / "images", [], tmp_path) == {}


def test_label_files_in_the_order_of_the_images(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").touch()
    assert list(label_files(tmp_path, ["b", "a"], tmp_path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("labels", "said"), [("0.1 0.1 0.5 0.1 0.5 0.9 0.1 0.9 ship 0\n", True), (SHIP, False), ("", False)]
)
def test_labels_that_look_normalised(tmp_path, caplog, labels, said):
    """Other tools write such coordinates, though in other formats."""
    read_sources([add(tmp_path / "train", "P1", labels)])
    assert any("are between 0 and 1" in message for message in caplog.messages) == said
