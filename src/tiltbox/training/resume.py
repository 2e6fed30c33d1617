"""Resumes a training that was cut off, and keeps everything of one that another training replaces."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tiltbox.errors import OutputError
from tiltbox.files.archives import CORRUPT
from tiltbox.files.atomic import WAIT_FOR_IT, acquired
from tiltbox.training.config import read_config

if TYPE_CHECKING:
    from mmengine.config import Config

CHECKPOINTS_KEPT = 2
PATIENCE = 60.0  # seconds to wait for what a killed training still writes

log = logging.getLogger("tiltbox")


def prepare_work(work: Path, fingerprint: str, wanted: bool) -> bool:
    """Make ``work`` the folder of the training with this fingerprint; returns whether it has a checkpoint.

    Another training with a checkpoint is kept beside it, as ``work.<its fingerprint>``, and resumed when it
    is asked for again. If resuming is not ``wanted``, everything unfinished is deleted.

    Args:
        fingerprint: A hash of the training's patches and of :func:`tiltbox.settings.dependencies.training`.
    """
    if not wanted:
        _drop_all(work)
    elif fingerprint_of(work) != fingerprint:
        _set_aside(work)
        if _aside(work, fingerprint).exists():
            os.replace(_aside(work, fingerprint), work)
    if not work.exists():
        return False
    _drop_damaged(work)
    last = last_checkpoint(work)
    log.info("%s", f"resuming from step {_step(last)}" if last else "starting over: nothing had been saved")
    return last is not None


def require_no_writer(work: Path) -> None:
    """Wait for processes of a killed training that still save its state there.

    Raises:
        OutputError: They have not ended after a minute.
    """
    if work.exists():
        with _locked(work):
            pass


@contextmanager
def only_writer(work: Path, rank: int) -> Iterator[None]:
    """Keep another training from using ``work``; only the first process writes there."""
    with _locked(work) if rank == 0 else nullcontext():
        yield


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    lock = FileLock(work / ".lock", fallback_to_soft=False)
    try:
        acquired(lock, PATIENCE)
    except Timeout:
        problem = "processes of an earlier training are still active here"
        raise OutputError(work, problem, WAIT_FOR_IT) from None
    try:
        yield
    finally:
        lock.release()


def validates_otherwise(work: Path, config: Config) -> bool:
    """Whether the training in ``work`` was last validated on other patches than ``config`` asks for."""
    asked, before = config.validation, read_config(work / "config.py").get("validation") or {}
    return asked is not None and asked.contents != before.get("contents")


def can_resume(work: Path, fingerprint: str) -> bool:
    """Whether a checkpoint of the training with this fingerprint is in ``work`` or kept beside it."""
    folder = work if fingerprint_of(work) == fingerprint else _aside(work, fingerprint)
    return last_checkpoint(folder) is not None


def last_checkpoint(work: Path) -> Path | None:
    """The newest complete checkpoint; one that a killed process or a crashed machine was writing is not."""
    return next(filter(_is_whole, _checkpoints(work)), None)


def _checkpoints(work: Path) -> list[Path]:
    """All checkpoints in a work folder, newest first."""
    return sorted(work.glob("step_*.pth"), key=_step, reverse=True)


def checkpoint_of(work: Path, step: int) -> Path:
    """The checkpoint that is written after this step."""
    return work / f"step_{step}.pth"


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step_"))


def drop_old(work: Path) -> None:
    """Delete checkpoints but the last few."""
    for path in _checkpoints(work)[CHECKPOINTS_KEPT:]:
        path.unlink()


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is complete: PyTorch writes a zip, with a checksum of each part, index last."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (*CORRUPT, NotImplementedError):
        return False


def _drop_damaged(work: Path) -> None:
    """Delete checkpoints newer than the last complete one, with a warning."""
    last = last_checkpoint(work)
    for path in _checkpoints(work):
        if path == last:
            break
        log.warning("%s is incomplete or damaged and was deleted", path)
        path.unlink()


def _drop_all(work: Path) -> None:
    for folder in (work, *work.parent.glob(_aside(work, "*").name)):
        if folder.exists():
            log.info("not resuming, as asked: %s is deleted", folder)
            shutil.rmtree(folder)


def _set_aside(work: Path) -> None:
    if last_checkpoint(work) is None:
        shutil.rmtree(work, ignore_errors=True)
        return
    kept = _aside(work, fingerprint_of(work) or "unknown")
    shutil.rmtree(kept, ignore_errors=True)  # an older state of the same training
    os.replace(work, kept)
    log.warning(
        "not resuming: the configuration changed; what was trained is kept in %s"
        " and is resumed with the former settings (--no-resume drops them)",
        kept,
    )


def _aside(work: Path, fingerprint: str) -> Path:
    return work.with_name(f"{work.name}.{fingerprint}")


def fingerprint_of(work: Path) -> str | None:
    """The fingerprint with which the training in ``work`` was started."""
    path = work / "config.py"
    return read_config(path).get("fingerprint") if path.exists() else None
