from __future__ import annotations

import json
import os
import shutil
import stat
from collections import namedtuple
from pathlib import Path

import pytest

from tiltbox.errors import OutputError
from tiltbox.files import require_space, require_writable, whole_file, whole_folder, write_json, write_text

Usage = namedtuple("Usage", "total used free")


class Interrupted(BaseException):
    """What ends a process need not be an Exception."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# files --------------------------------------------------------------------------------------------------


def test_an_empty_file(tmp_path):
    with whole_file(tmp_path / "new" / "file.txt") as temporary:
        assert temporary.parent == tmp_path / "new"
    assert (tmp_path / "new" / "file.txt").read_bytes() == b""
    assert names(tmp_path / "new") == ["file.txt"]


def test_nothing_is_there_before_all_is_written(tmp_path):
    path = tmp_path / "file.txt"
    with whole_file(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("failure", [ValueError, Interrupted])
def test_a_failure_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(failure), whole_file(path) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_hard_linked_file_is_replaced_not_written_through(tmp_path):
    """DVC's cache holds the other name of it."""
    path, cached = tmp_path / "file.txt", tmp_path / "cached"
    cached.write_text("old")
    os.link(cached, path)
    write_text(path, "new")
    assert (path.read_text(), cached.read_text()) == ("new", "old")


def test_a_symlink_is_replaced_not_written_through(tmp_path):
    path, cached = tmp_path / "file.txt", tmp_path / "cached"
    cached.write_text("old")
    path.symlink_to(cached)
    write_text(path, "new")
    assert (path.read_text(), cached.read_text(), path.is_symlink()) == ("new", "old", False)


def test_json_layout(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1], "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": [\n    1\n  ],\n  "a": "é"\n}\n'
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"b": [1], "a": "é"}


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(OutputError, match="is a folder; name a file with --out"):
        write_text(tmp_path, "new")
    assert names(tmp_path) == ["kept"]


# folders ------------------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path):
    with whole_folder(tmp_path / "deep" / "out") as temporary:
        assert names(temporary) == []
    assert names(tmp_path / "deep") == ["out"]
    assert stat.S_IMODE((tmp_path / "deep" / "out").stat().st_mode) == 0o755


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "old").write_text("old")
    with whole_folder(out) as temporary:
        (temporary / "new").write_text("new")
        assert names(out) == ["sub"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [ValueError, Interrupted])
def test_a_failure_leaves_the_old_folder(tmp_path, failure):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(failure), whole_folder(out) as temporary:
        (temporary / "new").write_text("new")
        raise failure
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(OutputError, match="is a file; name a folder with --out"),
        whole_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


# where nothing can be written ---------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["file", "file/deeper"])
@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_below_a_regular_file(tmp_path, whole, below):
    """Stands for every folder that cannot be written, also where the tests run as root."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as error, whole(tmp_path / below / "out"):
        pass
    assert str(error.value).startswith(f"{tmp_path / below}: cannot write here (")
    assert str(error.value).endswith("; choose another folder with --out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"cannot write here \(Permission denied\)"):
        require_writable(tmp_path)


def test_writable_folders_are_made_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("free", [0, 999])
def test_no_space(tmp_path, monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - free, free))
    with pytest.raises(OutputError) as error:
        require_space(tmp_path / "not" / "made", 1000)
    assert str(error.value).startswith(f"{tmp_path}: needs about 0.0 GiB")
    assert not (tmp_path / "not").exists()


def test_sizes_are_said_in_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 2**40, 3 * 2**29))
    with pytest.raises(
        OutputError, match=r"needs about 20\.0 GiB, but only 1\.5 GiB are free; free some space"
    ):
        require_space(tmp_path, 20 * 2**30)


def test_just_enough_space(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2000, 1000, 1000))
    require_space(tmp_path, 1000)
