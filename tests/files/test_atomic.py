from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from tiltbox.errors import OutputError
from tiltbox.files import atomic as module
from tiltbox.files.atomic import (
    MARK,
    atomic_file,
    atomic_folder,
    require_writable,
    write_json,
    write_text,
)

Usage = type(shutil.disk_usage("/"))
split_folder = partial(atomic_folder, stage="split")


class Interrupted(BaseException):
    """What ends a process need not be an Exception."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def put(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fill(whole: AbstractContextManager[Path], text: str) -> None:
    with whole as temporary:
        (temporary / "a").write_text(text)


# files --------------------------------------------------------------------------------------------------


def test_an_empty_file(tmp_path):
    with atomic_file(tmp_path / "new" / "file.txt") as temporary:
        assert temporary.stat().st_size == 0
        assert temporary.stat().st_dev == (tmp_path / "new").stat().st_dev  # so it can be renamed
    assert (tmp_path / "new" / "file.txt").read_bytes() == b""
    assert names(tmp_path / "new") == ["file.txt"]


def test_nothing_is_there_before_all_is_written(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_rights_are_those_of_any_new_file_and_folder(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file.txt", "all")
        fill(split_folder(tmp_path / "out"), "all")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("failure", [ValueError, Interrupted])
def test_a_failure_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_file(path) as temporary:
        temporary.write_text("half of the n")
        raise failure
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_hard_linked_file_is_replaced_not_written_through(tmp_path):
    """Its other name is in DVC's cache."""
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
    with split_folder(tmp_path / "deep" / "out") as temporary:
        assert names(temporary) == []
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == [MARK]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    (tmp_path / "out").mkdir()
    fill(split_folder(tmp_path / "out"), "new")
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], [MARK, "a"])


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    out = tmp_path / "out"
    with split_folder(out) as temporary:
        put(temporary / "sub" / "old")
    with split_folder(out) as temporary:
        (temporary / "new").write_text("new")
        assert names(out) == [MARK, "sub"]
    assert names(out) == [MARK, "new"]
    assert names(tmp_path) == ["out"]


def test_a_marked_folder_may_lack_what_others_have_deleted(tmp_path):
    """Snakemake and DVC remove declared outputs before they run a stage."""
    out = tmp_path / "out"
    fill(split_folder(out), "old")
    (out / "a").unlink()
    fill(split_folder(out), "new")
    assert (out / "a").read_text() == "new"


@pytest.mark.parametrize(
    "file", ["manifest.json", "images/mydata.png", ".git/HEAD", "annfiles/P1.txt", "Task1_ship.txt", MARK]
)
def test_what_has_no_mark_stays(tmp_path, file):
    put(tmp_path / "out" / file)
    with pytest.raises(OutputError) as error, split_folder(tmp_path / "out"):
        pytest.fail("was let in")
    assert str(error.value) == (
        f"{tmp_path}/out: is not empty, and its .tiltbox does not say that 'tiltbox split' wrote it; choose"
        " another folder with --out, or remove this one if it is an old result"
    )
    assert contents(tmp_path) == {f"out/{file}": "mine"}


def test_what_was_put_beside_it_stays(tmp_path):
    """For example scores in the folder of what they score; hidden files do not count."""
    out = tmp_path / "out"
    fill(split_folder(out), "old")
    (out / ".DS_Store").touch()
    fill(split_folder(out), "new")
    put(out / "metrics.json")
    with pytest.raises(
        OutputError, match=r"contains .metrics\.json., which .tiltbox split. did not write and would"
    ):
        fill(split_folder(out), "newer")
    assert contents(out) == contents(out) | {"a": "new", "metrics.json": "mine"}


def test_what_another_stage_wrote_stays(tmp_path):
    fill(atomic_folder(tmp_path / "out", "download"), "raw")
    with pytest.raises(OutputError, match="does not say that 'tiltbox split' wrote it"):
        fill(split_folder(tmp_path / "out"), "patches")
    assert (tmp_path / "out" / "a").read_text() == "raw"


def test_what_was_put_there_in_the_meantime_stays(tmp_path):
    with pytest.raises(OutputError, match="is not empty"), split_folder(tmp_path / "out"):
        put(tmp_path / "out" / "thesis.txt")
    assert contents(tmp_path) == {"out/thesis.txt": "mine"}


@pytest.mark.parametrize("failure", [ValueError, Interrupted])
def test_a_failure_leaves_the_old_folder(tmp_path, failure):
    out = tmp_path / "out"
    fill(split_folder(out), "old")
    with pytest.raises(failure), split_folder(out) as temporary:
        (temporary / "new").write_text("new")
        raise failure
    assert names(out) == [MARK, "a"]
    assert names(tmp_path) == ["out"]


def test_a_file_where_a_folder_should_be(tmp_path):
    put(tmp_path / "out")
    with (
        pytest.raises(OutputError, match="is a file; name a folder with --out"),
        split_folder(tmp_path / "out"),
    ):
        pass
    assert contents(tmp_path) == {"out": "mine"}


@pytest.mark.parametrize("read", ["out", "out/images", "link"])
def test_what_it_is_made_from_stays(tmp_path, read):
    fill(split_folder(tmp_path / "out"), "old")
    (tmp_path / "out" / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out" / "images")
    with pytest.raises(OutputError, match=f"out: contains {tmp_path / read}, which it is made from"):
        fill(atomic_folder(tmp_path / "out", "split", reads=[tmp_path, tmp_path / read]), "new")
    assert (tmp_path / "out" / "a").read_text() == "old"


@pytest.mark.parametrize(
    ("out", "problem"), [(".", "is the working directory"), ("..", "contains the working directory")]
)
def test_the_working_directory_stays(tmp_path, monkeypatch, out, problem):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match=f"{problem}; name a folder in it with --out"):
        fill(split_folder(Path(out)), "new")
    assert names(tmp_path) == ["here"] and names(tmp_path / "here") == []
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


def test_a_mount_point_stays(tmp_path):
    with pytest.raises(OutputError, match=r"/proc: is a mount point; name a folder in it with --out"):
        fill(split_folder(Path("/proc")), "new")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    """It leads to the large disk."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "out")
    for text in ("first", "second"):
        fill(split_folder(link), text)
        assert link.is_symlink() and contents(tmp_path / "disk/out")["a"] == text
    assert names(tmp_path / "disk") == ["out"]


# renames that fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError(errno.EBUSY, "Device or resource busy"), OutputError),
        (OSError(errno.EXDEV, "Invalid cross-device link"), OutputError),
        (Interrupted(), Interrupted),
    ],
)
def test_the_old_folder_comes_back(tmp_path, monkeypatch, failing, failure, raised):
    out, calls, replace = tmp_path / "out", [], os.replace
    fill(split_folder(out), "old")

    def fail_once(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise failure
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(raised) as error:
        fill(split_folder(out), "new")
    assert (names(tmp_path), (out / "a").read_text()) == (["out"], "old")
    if raised is OutputError:
        assert f"out: cannot be replaced ({failure.strerror}); remove it first, or " in str(error.value)


# what killed processes leave ----------------------------------------------------------------------------


def killed(tmp_path: Path, kill_at: str, whole: str = 'atomic_folder(out, "split")') -> None:
    """Run a process that writes ``out`` and is killed at the call of ``kill_at``."""
    code = f"""
import os, shutil, signal, sys
from pathlib import Path
from tiltbox.files.atomic import atomic_file, atomic_folder

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def second_time(*args, replace=os.replace):
    os.replace = kill
    replace(*args)

out = Path(sys.argv[1])
with {whole} as new:
    path = new / "a" if new.is_dir() else new
    path.write_text("new")
    {kill_at}
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kill_at", "shows"),
    [
        ("kill()", "old"),  # while it fills the new one
        ("os.replace = kill", "old"),  # before the old one is moved away
        ("os.replace = second_time", None),  # before the new one takes its place
        ("shutil.rmtree = kill", "new"),  # before the old one is removed
    ],
)
@pytest.mark.parametrize("then", ["fails", "succeeds"])
def test_a_killed_process_costs_nothing(tmp_path, kill_at, shows, then):
    out = tmp_path / "out"
    fill(split_folder(out), "old")
    killed(tmp_path, kill_at)
    assert len(names(tmp_path)) > 1 or not out.exists()
    assert (out / "a").read_text() == shows if shows else not out.exists()
    if then == "succeeds":
        fill(split_folder(out), "newest")
        assert (out / "a").read_text() == "newest"
    else:
        with pytest.raises(ValueError), split_folder(out):
            raise ValueError
        assert (out / "a").read_text() == (shows or "old")
    assert names(tmp_path) == ["out"]


def test_the_old_folder_comes_back_in_the_place_of_an_empty_one(tmp_path):
    """Snakemake makes the folders of outputs before it runs a stage."""
    fill(split_folder(tmp_path / "out"), "old")
    killed(tmp_path, "os.replace = second_time")
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError), split_folder(tmp_path / "out"):
        raise ValueError
    assert (tmp_path / "out" / "a").read_text() == "old"


def test_what_a_killed_process_left_of_a_file(tmp_path):
    put(tmp_path / "out", "old")
    killed(tmp_path, "kill()", "atomic_file(out)")
    assert len(names(tmp_path)) > 1 and (tmp_path / "out").read_text() == "old"
    write_text(tmp_path / "out", "new")
    assert contents(tmp_path) == {"out": "new"}


@pytest.mark.parametrize("whole", [atomic_file, split_folder])
def test_hidden_neighbours_stay(tmp_path, whole):
    """Only folders with our name and a random part may be removed."""
    others = [".out.settings", ".out.tiltbox", ".out.tiltbox-notes", ".out2.tiltbox-abcdefgh", ".other"]
    for name in others:
        put(tmp_path / name / "file")
    with whole(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([*others, "out"])


@pytest.mark.parametrize("whole", [atomic_file, split_folder])
def test_two_at_once(tmp_path, monkeypatch, whole):
    """The second does not disturb the first, and its work is not lost."""
    monkeypatch.setattr(module, "_FILE_PATIENCE", 0)
    monkeypatch.setattr(module, "_FOLDER_PATIENCE", 0)
    out = tmp_path / "out"
    with whole(out) as first:
        with (
            pytest.raises(OutputError, match=r"out: is being written by another process; wait for it, or"),
            whole(out),
        ):
            pytest.fail("was let in")
        assert first.exists()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("failure", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
def test_a_drive_without_locks(tmp_path, monkeypatch, failure):
    """It is unknown whether existing workplaces are in use, so they stay."""

    def no_lock(*_, **__):
        raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(FileLock, "acquire", no_lock)
    killed(tmp_path, "kill()")
    (left,) = tmp_path.glob(".out.tiltbox-*")
    fill(split_folder(tmp_path / "out"), "new")
    assert left.is_dir() and (tmp_path / "out" / "a").read_text() == "new"
    assert len(list(tmp_path.glob(".out.tiltbox-*"))) == 1
    assert (tmp_path / ".out.tiltbox.lock").exists() == (failure == errno.EACCES)  # another user's


# where nothing can be written ---------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["file", "file/deeper"])
@pytest.mark.parametrize("whole", [atomic_file, split_folder])
def test_below_a_regular_file(tmp_path, whole, below):
    """Stands for every folder that cannot be written, even if the tests run as root."""
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


@pytest.mark.parametrize("whole", [atomic_file, split_folder])
def test_a_disk_that_fills_up(tmp_path, whole):
    with pytest.raises(OutputError) as error, whole(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(error.value) == (
        f"{tmp_path}/out: cannot write here (No space left on device);"
        " free some space or choose another folder with --out"
    )
    assert names(tmp_path) == []
