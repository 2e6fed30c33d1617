from __future__ import annotations

import errno
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tiltbox.errors import DataError, OutputError
from tiltbox.files import archives as module
from tiltbox.files.archives import is_archive, unpack

IMAGES, LABELS = (".png", ".jpg"), (".txt",)
KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
NOISE = random.Random(0).randbytes(70_000)


def packed(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
        return path
    kind = path.name.rpartition(".tar")[2].lstrip(".")
    with tarfile.open(path, f"w:{kind}") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_it(tmp_path, kind):
    archive = packed(tmp_path / f"a.{kind}", {})
    with pytest.raises(DataError, match=r"contains no \.txt file"):
        unpack(archive, tmp_path / "out", LABELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", ["", "images/", "./images/", "DOTA/train/images/part1/", "/absolute/"])
def test_any_inner_layout(tmp_path, kind, inner):
    files = {f"{inner}P0.png": b"zero", f"{inner}P1.JPG": NOISE, f"{inner}readme.md": b"no"}
    archive = packed(tmp_path / f"a.{kind}", files)
    assert unpack(archive, tmp_path / "out", IMAGES) == 2
    assert contents(tmp_path / "out") == {"P0.png": b"zero", "P1.JPG": NOISE}


def test_two_archives_into_one_folder(tmp_path):
    for name in ("P0", "P1"):
        unpack(packed(tmp_path / f"{name}.zip", {f"{name}.png": b"."}), tmp_path / "out", IMAGES)
    assert sorted(contents(tmp_path / "out")) == ["P0.png", "P1.png"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", ["../P0.png", "../../etc/P0.png", "a/../../P0.png", "..\\P0.png"])
def test_nothing_is_written_elsewhere(tmp_path, kind, name):
    archive = packed(tmp_path / f"a.{kind}", {name: b"."})
    unpack(archive, tmp_path / "inner/out", IMAGES)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and p != archive) == ["P0.png"]
    assert [p.name for p in (tmp_path / "inner/out").iterdir()] == ["P0.png"]


def test_links_are_passed_over(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, kind in (("P0.txt", tarfile.SYMTYPE), ("P1.txt", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            file.addfile(member)
        file.addfile(tarfile.TarInfo("P2.txt"))
    assert unpack(tmp_path / "a.tar", tmp_path / "out", LABELS) == 1
    assert contents(tmp_path / "out") == {"P2.txt": b""}


def test_links_in_a_zip_are_passed_over(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, kind in (("P0.txt", stat.S_IFLNK), ("P1.txt", stat.S_IFREG), ("P2.txt", 0)):
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o644) << 16
            file.writestr(member, "/etc/passwd")
    unpack(tmp_path / "a.zip", tmp_path / "out", LABELS)
    assert sorted(contents(tmp_path / "out")) == ["P1.txt", "P2.txt"]


def test_a_tar_archive_that_ends_with_a_zip(tmp_path):
    inner = packed(tmp_path / "inner.zip", {"P9.txt": b"of the zip"}).read_bytes()
    archive = packed(tmp_path / "a.tar", {"P0.txt": b"of the tar", "more.zip": inner})
    unpack(archive, tmp_path / "out", LABELS)
    assert contents(tmp_path / "out") == {"P0.txt": b"of the tar"}


def test_hidden_files_and_unwanted_folders_are_passed_over(tmp_path):
    files = {
        "labelTxt/P0.txt": b"oriented",
        "__MACOSX/labelTxt/P0.txt": b"mac",
        "labelTxt/._P0.txt": b"mac",
        "trainset_reclabelTxt/P0.txt": b"horizontal",
        "annotations/hbb/P0.txt": b"horizontal",
    }
    archive = packed(tmp_path / "a.zip", files)
    unpack(archive, tmp_path / "out", LABELS, without=("reclabeltxt", "hbb"))
    assert contents(tmp_path / "out") == {"P0.txt": b"oriented"}


def test_the_same_name_twice(tmp_path):
    archive = packed(tmp_path / "a.tar.gz", {"v1.0/P0.txt": b"1", "v1.5/P0.txt": b"2"})
    with pytest.raises(DataError, match=r"a\.tar\.gz:v1\.5/P0\.txt: another file named P0\.txt"):
        unpack(archive, tmp_path / "out", LABELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.5, 0.8, 0.97])
def test_truncated(tmp_path, kind, share):
    whole = packed(tmp_path / f"a.{kind}", {f"P{i}.png": NOISE[i:] for i in range(3)})
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"truncated or corrupt|not a complete zip or tar"):
        unpack(whole, tmp_path / "out", IMAGES)


def test_tar_cut_between_two_members(tmp_path):
    whole = packed(tmp_path / "a.tar", {"P0.png": b"a" * 512, "P1.png": b"b" * 512})
    whole.write_bytes(whole.read_bytes()[:1024])
    with pytest.raises(DataError, match="end marker is missing"):
        unpack(whole, tmp_path / "out", IMAGES)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bits(tmp_path, kind):
    archive = packed(tmp_path / f"a.{kind}", {"P0.png": NOISE})
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"truncated or corrupt|not a complete zip or tar"):
        unpack(archive, tmp_path / "out", IMAGES)


def test_encrypted(tmp_path):
    archive = packed(tmp_path / "a.zip", {"P0.png": b"data"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the member's header
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # and in the directory's
    archive.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        unpack(archive, tmp_path / "out", IMAGES)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html></html>", b"Rar!\x1a\x07\x00" + NOISE])
def test_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: is not a complete zip or tar archive; delete it and run"):
        unpack(tmp_path / "a.zip", tmp_path / "out", IMAGES)
    assert not is_archive(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", KINDS)
def test_archives(tmp_path, kind):
    assert is_archive(packed(tmp_path / f"a.{kind}", {"P0.png": NOISE}))


@pytest.mark.parametrize("name", ["none.zip", "."])
def test_missing(tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read \(\w.*\); check the path"):
        unpack(tmp_path / name, tmp_path / "out", IMAGES)


def refuse(number: int, name: str):
    """``open``, unchanged for all files except those with that name."""

    def opened(path, *rest, **options):
        if Path(path).name == name:
            raise OSError(number, errno.errorcode[number])
        return open(path, *rest, **options)

    return opened


def test_archive_that_must_not_be_read(tmp_path, monkeypatch):
    packed(tmp_path / "a.zip", {"P0.png": NOISE})
    monkeypatch.setattr(module, "open", refuse(errno.EACCES, "a.zip"), raising=False)
    with pytest.raises(DataError, match=r"a\.zip: cannot be read \(EACCES\); check the path"):
        unpack(tmp_path / "a.zip", tmp_path / "out", IMAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_archive_on_a_broken_drive(tmp_path, monkeypatch, kind):
    packed(tmp_path / f"a.{kind}", {"P0.png": NOISE})

    class Broken:
        def read(self, size):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tarfile.TarFile, "extractfile", lambda *_: Broken())
    monkeypatch.setattr(zipfile.ZipExtFile, "read", Broken.read)
    with pytest.raises(DataError, match=rf"a\.{kind}: cannot be read \(Input/output error\); check"):
        unpack(tmp_path / f"a.{kind}", tmp_path / "out", IMAGES)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space or choose"), (errno.EDQUOT, "free"), (errno.EACCES, "choose another")],
)
def test_what_cannot_be_written(tmp_path, monkeypatch, number, remedy):
    packed(tmp_path / "a.zip", {"P0.png": NOISE})
    monkeypatch.setattr(module, "open", refuse(number, "P0.png"), raising=False)
    with pytest.raises(OutputError, match=rf"out: cannot write here \({errno.errorcode[number]}\); {remedy}"):
        unpack(tmp_path / "a.zip", tmp_path / "out", IMAGES)


def test_a_file_where_the_folder_should_be(tmp_path):
    packed(tmp_path / "a.zip", {"P0.png": NOISE})
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out: cannot write here"):
        unpack(tmp_path / "a.zip", tmp_path / "out", IMAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_changed(tmp_path, kind):
    data = packed(tmp_path / f"a.{kind}", {"P0.png": NOISE[:300]}).read_bytes()
    rng = random.Random(0)
    for number in range(60):
        spoilt = bytearray(data)
        spoilt[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"b.{kind}").write_bytes(spoilt)
        try:
            unpack(tmp_path / f"b.{kind}", tmp_path / f"out{number}", IMAGES)
        except DataError as error:
            assert not error.remedy.startswith("check the path")
