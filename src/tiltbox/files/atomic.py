"""Writes outputs whole or not at all, and replaces folders only if the same stage wrote them.

Everything is written in a workplace beside its final place, ``.<name>.tiltbox-<random>/new``, and renamed
when complete: a killed process leaves no half-written output, and a file that is hard-linked elsewhere (into
DVC's cache, say) is replaced rather than written through. A folder is replaced in two renames: the old one
goes into the workplace as ``old``, the new one comes out of it. A failure in between puts the old one back.

A killed process leaves its workplace. The next process that writes the same output removes it; if it contains
``old`` and nothing is in the final place, ``old`` is put back first. A lock that the system takes from a
process when it ends (on ``.<name>.tiltbox.lock``) keeps a second process from writing the same output, and so
from removing the workplace of one that is still running. Without locks, as on some network drives, nothing is
removed; on a drive where each machine has its own locks, only one machine may write at a time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tiltbox.errors import OutputError

MARK = ".tiltbox"  # marks a folder that a stage made and may replace, unlike one of the user's
_RANDOM = 8  # characters at the end of what mkdtemp makes
_FILE_PATIENCE, _FOLDER_PATIENCE = 60.0, 1.0  # seconds to wait for another writer of the same output
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "choose another folder with --out"
WAIT_FOR_IT = "wait for it, or end it (it may have outlived its workflow)"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file to fill; it takes the place of ``path`` when the block succeeds."""
    path = Path(path)
    require_file_place(path)
    require_writable(path.parent)
    with _workplace(path, _FILE_PATIENCE) as place:
        new = place / "new"
        new.touch()
        yield new
        os.replace(new, path)


@contextmanager
def atomic_folder(path: Path, stage: str, *, reads: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the place of ``path`` when the block succeeds.

    Args:
        path: The folder to write; a link to a folder stays a link. It must be empty or contain only hidden
            files and files that ``stage`` wrote, according to its mark. A folder with anything else is not
            replaced.
        stage: The verb of the command that writes it.
        reads: Paths that are read meanwhile; none may be in ``path``.

    Raises:
        OutputError: ``path`` cannot be written, must not be replaced or is being written by another process.
    """
    path = Path(os.path.realpath(path))
    _require_place(path, reads)
    require_writable(path.parent)
    with _workplace(path, _FOLDER_PATIENCE) as place:
        _require_ours(path, stage)
        new = place / "new"
        new.mkdir()
        yield new
        (new / MARK).write_text(_mark(stage) + "".join(f"{name}\n" for name in _shown(new)), encoding="utf-8")
        _require_ours(path, stage)  # work may take hours, in which the user may have put something there
        _take_place(new, path, place / "old")


def require_file_place(path: Path) -> None:
    """Raise OutputError if a folder, a device or a pipe is in the place of a file."""
    if path.is_dir():
        raise OutputError(path, "is a folder", "name a file with --out")
    if path.exists() and not path.is_file():
        raise OutputError(path, "is a device or a pipe, which would be replaced", "name a file with --out")


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a stable layout: two spaces, keys in the given order, a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def require_writable(folder: Path) -> None:
    """Create ``folder`` if needed and raise OutputError if nothing can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(where: Path, error: OSError) -> OutputError:
    """The error to raise for a system error; freeing space helps only if the disk is full."""
    remedy = f"free some space or {_ELSEWHERE}" if error.errno in _FULL else _ELSEWHERE
    return OutputError(where, f"cannot write here ({error.strerror or error})", remedy)


# where a folder may be written --------------------------------------------------------------------------


def _require_place(path: Path, reads: Iterable[Path]) -> None:
    """Refuse places that cannot be renamed or that contain something needed."""
    here = Path.cwd()
    if here.is_relative_to(path):
        problem = "is the working directory" if here == path else "contains the working directory"
        raise OutputError(path, problem, "name a folder in it with --out")
    if path.is_mount():
        raise OutputError(path, "is a mount point", "name a folder in it with --out")
    for read in reads:
        if Path(os.path.realpath(read)).is_relative_to(path):
            raise OutputError(path, f"contains {read}, which it is made from", _ELSEWHERE)


def _require_ours(path: Path, stage: str) -> None:
    """Refuse to replace anything but an empty folder or an earlier output of the same stage."""
    if path.exists() and not path.is_dir():
        raise OutputError(path, "is a file", "name a folder with --out")
    if not path.is_dir() or not any(path.iterdir()):
        return
    written = _written_by(stage, path)
    if written is None:
        problem = f"is not empty, and its {MARK} does not say that 'tiltbox {stage}' wrote it"
        raise OutputError(path, problem, f"{_ELSEWHERE}, or remove this one if it is an old result")
    for name in _shown(path):
        if name not in written:
            problem = f"contains '{name}', which 'tiltbox {stage}' did not write and would remove"
            raise OutputError(path, problem, f"move that away, or {_ELSEWHERE}")


def _written_by(stage: str, folder: Path) -> list[str] | None:
    """What the mark of a folder lists; None if it has no mark of that stage."""
    try:
        text = (folder / MARK).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text.removeprefix(_mark(stage)).splitlines() if text.startswith(_mark(stage)) else None


def _shown(folder: Path) -> list[str]:
    """Names in a folder, without the hidden ones that file managers leave."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _mark(stage: str) -> str:
    return f"Written by 'tiltbox {stage}', which may replace this folder and what is listed here.\n"


def _take_place(new: Path, path: Path, old: Path) -> None:
    """Rename ``path`` to ``old`` and ``new`` to ``path``; after a failure, ``old`` is put back."""
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        problem = f"cannot be replaced ({error.strerror})"
        raise OutputError(path, problem, "remove it first, or name a folder in it with --out") from error


# workplaces ---------------------------------------------------------------------------------------------


@contextmanager
def _workplace(path: Path, patience: float) -> Iterator[Path]:
    """Yield a folder beside ``path``; it is removed when the block ends, as are those of killed processes."""
    with write_lock(path, patience) as alone:
        for left in _workplaces(path) if alone else ():
            _remove(left, path)
        place = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        try:
            yield place
        except OSError as error:
            if error.errno in _FULL:
                raise cannot_write(path, error) from error
            raise
        finally:
            _remove(place, path)


@contextmanager
def write_lock(path: Path, patience: float = -1) -> Iterator[bool]:
    """Hold the lock of ``path``; yields whether there is one.

    Args:
        patience: Seconds to wait for another process, without end if negative.

    Raises:
        OutputError: Another process has had it for longer.
    """
    lock = FileLock(path.with_name(f".{path.name}.tiltbox.lock"), fallback_to_soft=False)
    try:
        held = acquired(lock, patience)
    except Timeout:
        raise OutputError(path, "is being written by another process", WAIT_FOR_IT) from None
    try:
        yield held
    finally:
        if held:
            Path(lock.lock_file).unlink(missing_ok=True)  # before the release: a waiting process retries
        lock.release()


def acquired(lock: FileLock, patience: float = -1) -> bool:
    """Whether the lock was acquired; some drives have none, and another user's file may be in its place.

    Args:
        lock: Made with ``fallback_to_soft=False``: the file of a soft lock would outlive a killed process.
        patience: Seconds to wait for another process, without end if negative.

    Raises:
        Timeout: Another process has had it for longer.
    """
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise
    except PermissionError:
        return False
    except OSError:
        Path(lock.lock_file).unlink(missing_ok=True)
        return False
    return True


def _prefix(path: Path) -> str:
    return f".{path.name}.tiltbox-"


def _workplaces(path: Path) -> list[Path]:
    names = [entry.name for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path))]
    return [path.with_name(name) for name in names if len(name) == len(_prefix(path)) + _RANDOM]


def _remove(place: Path, path: Path) -> None:
    """Remove a workplace, after putting the old folder back if nothing is in its place."""
    old = place / "old"
    if old.is_dir() and not (path.exists() and (path.is_file() or any(path.iterdir()))):
        os.replace(old, path)
    shutil.rmtree(place, ignore_errors=True)
