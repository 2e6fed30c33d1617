"""What split prints, and the sources that users may have."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiltbox.dota.images.pixels import write_png

TILTBOX = Path(sys.executable).parent / "tiltbox"
SHIP = "0 0 9 0 9 5 0 5 ship 0\n"

Usage = type(shutil.disk_usage("/"))


def test_counts_of_what_was_cut(source, tmp_path, capsys, run):
    assert run("split {source} --out {out} --size 64 --overlap 16", source=source, out=tmp_path / "out") == 0
    assert capsys.readouterr() == ("1 patch with 1 object of 1 image\n", "")
    assert (tmp_path / "out/annfiles/P1__64__0___0.txt").exists()


def test_a_progress_bar_is_for_terminals(source, tmp_path):
    command = [TILTBOX, "split", source, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 patch with 1 object of 1 image\n", "")


def test_images_that_are_nearly_black(source, tmp_path, caplog, run):
    write_png(source / "images/P1.png", np.full((64, 64, 3), 7, np.uint8))
    assert run("split {source} --out {out}", source=source, out=tmp_path / "out") == 0
    assert "1 image nearly black: only the high byte of 16-bit samples" in caplog.text


def _no_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def _garbage(folder: Path) -> None:
    (folder / "images/P1.png").write_bytes(b"no picture")


def _corrupt(folder: Path) -> None:
    content = bytearray((folder / "images/P1.png").read_bytes())
    content[-20] ^= 0xFF  # in the pixels
    (folder / "images/P1.png").write_bytes(content)


def _truncated(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "images/P1.tif")
    content = (folder / "images/P1.tif").read_bytes()
    (folder / "images/P1.tif").write_bytes(content[:-10])
    (folder / "images/P1.png").unlink()


def _no_label(folder: Path) -> None:
    (folder / "labelTxt/P1.txt").rename(folder / "labelTxt/P2.txt")


def _no_image(folder: Path) -> None:
    (folder / "labelTxt/P2.txt").write_text(SHIP)


def _bad_line(folder: Path) -> None:
    (folder / "labelTxt/P1.txt").write_text(SHIP + "0 0 nine 0 9 5 0 5 ship 0\n")


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (_no_images, "source/images: "),
        (_garbage, "source/images/P1.png: "),
        (_corrupt, "source/images/P1.png: is not a complete image"),
        (_truncated, "source/images/P1.tif: is not a complete image"),
        (_no_label, "source/labelTxt: no label file for image P1"),
        (_no_image, "source/images: no image for label file P2"),
        (_bad_line, "source/labelTxt/P1.txt:2: "),
    ],
)
@pytest.mark.filterwarnings("default")
def test_spoilt_source(spoil, where, source, tmp_path, failure):
    spoil(source)
    line = failure("split {source} --out {out}", source=source, out=tmp_path / "out")
    assert where in line and ";" in line
    assert not (tmp_path / "out").exists()


def test_no_space_for_the_patches(source, tmp_path, monkeypatch, failure):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_png(next((source / "images").iterdir()), noise)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 10, 0))
    line = failure("split {source} --out {out}", source=source, out=tmp_path / "out")
    assert "only 0.0 MiB are free; free some space or choose another folder with --out" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
