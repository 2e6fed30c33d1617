"""Patches as plain pixels: the same as decoded, made once, found by contents, whole or not there."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from tiltbox.dota.images.pixels import read_image
from tiltbox.errors import DataError, OutputError
from tiltbox.mini import render_mini
from tiltbox.stages.split import split
from tiltbox.training import kept_pixels
from tiltbox.training.kept_pixels import VARIABLE, keep_pixels, pixels_of


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    render_mini(folder / "raw", images={"train": 1, "val": 0, "test": 0})
    split([folder / "raw/train"], folder / "patches", size=128, overlap=24, workers=1)
    return folder / "patches"


@pytest.fixture
def patches(cut, tmp_path):
    return shutil.copytree(cut, tmp_path / "patches")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder for pixels."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept"))
    kept_pixels._kept.cache_clear()
    return tmp_path / "kept"


def images(patches):
    return sorted((patches / "images").glob("*.png"))


def with_objects(patches):
    return [path for path in images(patches) if (patches / f"annfiles/{path.stem}.txt").read_text().strip()]


def test_pixels_are_those_of_the_images(patches, kept):
    wanted = [read_image(path) for path in images(patches)]
    keep_pixels(patches)
    assert {path.suffix for path in kept.iterdir()} >= {".pixels", ".json"}
    known = [path.stem for path in with_objects(patches)]
    assert known and list(json.loads(next(kept.glob("*.json")).read_text())) == known
    for path in with_objects(patches):
        path.write_bytes(b"")  # it is not read
    for path, image in zip(images(patches), wanted, strict=True):
        np.testing.assert_array_equal(pixels_of(path), image)


def test_what_is_read_can_be_changed(patches, kept):
    keep_pixels(patches)
    path = with_objects(patches)[0]
    pixels_of(path)[:] = 0
    np.testing.assert_array_equal(pixels_of(path), read_image(path))


def test_images_of_any_size(patches, kept):
    path = with_objects(patches)[0]
    image = np.random.default_rng(0).integers(255, size=(7, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)
    keep_pixels(patches)
    np.testing.assert_array_equal(pixels_of(path), image)


def test_they_are_made_once_and_shared(patches, kept, tmp_path):
    keep_pixels(patches)
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    elsewhere = shutil.copytree(patches, tmp_path / "elsewhere")
    shutil.rmtree(elsewhere / "images")
    keep_pixels(elsewhere)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_other_contents_have_a_file_of_their_own(patches, kept):
    keep_pixels(patches)
    manifest = json.loads((patches / "manifest.json").read_text())
    (patches / "manifest.json").write_text(json.dumps(manifest | {"contents": "other"}))
    keep_pixels(patches)
    assert len(list(kept.glob("*.pixels"))) == 2 and (kept / "other.pixels").exists()


def test_without_the_variable_nothing_is_kept(patches, kept, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    keep_pixels(patches)
    np.testing.assert_array_equal(pixels_of(images(patches)[0]), read_image(images(patches)[0]))
    assert not kept.exists()


def test_a_damaged_patch_leaves_nothing(patches, kept):
    with_objects(patches)[-1].write_bytes(b"no image")
    with pytest.raises(DataError, match=with_objects(patches)[-1].name):
        keep_pixels(patches)
    assert list(kept.glob("*.pixels")) + list(kept.glob("*.json")) == []


def test_a_full_disk(patches, kept, monkeypatch):
    usage = shutil.disk_usage(kept.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=f": needs at least .* are free; .* or unset {VARIABLE}"):
        keep_pixels(patches)
