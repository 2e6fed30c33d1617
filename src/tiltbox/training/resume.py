"""Resumes a training that was cut off, and keeps everything of one that another training replaces."""

from __future__ import annotations

import logging
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbox.dota.reading import CORRUPT
from tiltbox.training.config import read_config

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger("tiltbox")


def prepare_work(work: Path, fingerprint: str, wanted: bool) -> bool:
    """Make ``work`` the folder of the training with this fingerprint; returns whether it has finished epochs.

    Finished epochs of another training are kept beside it, as ``work.<its fingerprint>``, and resumed when
    that training is asked for again. If resuming is not ``wanted``, everything unfinished is deleted.

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
    finished = last_checkpoint(work) is not None
    log.info("%s", "resuming from the last epoch" if finished else "starting over: no epoch had finished")
    return finished


def validates_otherwise(work: Path, config: Config) -> bool:
    """Whether the training in ``work`` was last validated on other patches than ``config`` asks for."""
    asked, before = config.validation, read_config(work / "config.py").get("validation") or {}
    return asked is not None and asked.contents != before.get("contents")


def has_epochs(work: Path, fingerprint: str) -> bool:
    """Whether finished epochs of the training with this fingerprint are in ``work`` or kept beside it."""
    folder = work if fingerprint_of(work) == fingerprint else _aside(work, fingerprint)
    return last_checkpoint(folder) is not None


def last_checkpoint(work: Path) -> Path | None:
    """The newest complete checkpoint; one that a killed process or a crashed machine was writing is not."""
    return next(filter(_is_whole, _checkpoints(work)), None)


def _checkpoints(work: Path) -> list[Path]:
    """All checkpoints in a work folder, newest first."""
    found = {path: re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name) for path in work.glob("*.pth")}
    numbers = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(numbers, key=numbers.__getitem__, reverse=True)


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
        "not resuming: the configuration changed; the finished epochs are kept in %s"
        " and are resumed with the former settings (--no-resume drops them)",
        kept,
    )


def _aside(work: Path, fingerprint: str) -> Path:
    return work.with_name(f"{work.name}.{fingerprint}")


def fingerprint_of(work: Path) -> str | None:
    """The fingerprint with which the training in ``work`` was started."""
    path = work / "config.py"
    return read_config(path).get("fingerprint") if path.exists() else None
