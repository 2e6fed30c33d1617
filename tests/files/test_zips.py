"""Archives, checked with other readers."""

from __future__ import annotations

import shutil
import subprocess
import zipfile

import pytest

from tiltbox.files.zips import written_zip

FILES = {
    "Task1_ship.txt": [b"P1 0.5\n" * 9, b"P2\n"],
    "Task1_größe.txt": [],
    "big": [bytes(3 * 2**20), b"x" * 99],
}


@pytest.fixture
def archive(tmp_path):
    with written_zip(tmp_path / "a.zip") as written:
        for name, pieces in FILES.items():
            written.add(name, iter(pieces))
    return tmp_path / "a.zip"


def test_nothing(tmp_path):
    with written_zip(tmp_path / "a.zip"):
        pass
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == []


def test_read_by_python(archive):
    with zipfile.ZipFile(archive) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == {
            name: b"".join(pieces) for name, pieces in FILES.items()
        }
        for entry in read.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0) and entry.external_attr >> 16 == 0o100644
            assert entry.compress_type == zipfile.ZIP_DEFLATED
        assert read.getinfo("big").compress_size < 50_000


@pytest.mark.skipif(not shutil.which("unzip"), reason="needs unzip")
def test_read_by_unzip(archive, tmp_path):
    subprocess.run(["unzip", "-tq", archive], check=True, capture_output=True)


def test_the_same_bytes_however_it_comes_in_pieces(archive, tmp_path):
    with written_zip(tmp_path / "b.zip") as written:
        for name, pieces in FILES.items():
            written.add(name, pieces)
    assert archive.read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("tiltbox.files.zips._MOST", 1000)
    with (
        pytest.raises(ValueError, match="at most 4 GiB, but b makes more"),
        written_zip(tmp_path / "a.zip") as written,
    ):
        written.add("a", [b"1"])
        written.add("b", [bytes(1001)])
    assert not zipfile.is_zipfile(tmp_path / "a.zip")
