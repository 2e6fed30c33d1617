"""Errors that a user can fix, handed from a training process to its caller and to its repetitions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tiltbox import errors
from tiltbox.devices.memory import allowed_memory
from tiltbox.errors import EndedError, TiltboxError, TrainingError
from tiltbox.files.atomic import write_text

ATTEMPT = "TILTBOX_ATTEMPT"  # the variable that counts how often a run of Snakemake has started the same job


def as_text(error: TiltboxError, **more: Any) -> str:
    """One line that :func:`from_text` reads."""
    parts = {"where": error.where, "problem": error.problem, "remedy": error.remedy}
    return json.dumps({"kind": type(error).__name__, **parts, **more})


def from_text(text: str) -> TiltboxError | None:
    """The error; None if the text is of another version."""
    try:
        parts = json.loads(text)
        found = getattr(errors, parts["kind"])(parts["where"], parts["problem"], parts["remedy"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return found if isinstance(found, TiltboxError) else None


def write_failure(config: Path, error: TiltboxError, *, memory: int | None = None) -> None:
    """Write the error beside the configuration of the training that it ended.

    If an error in one process ended the others, it stays.

    Args:
        memory: The bytes that were not enough, if that is the error.
    """
    before = read_failure(config)
    if not isinstance(error, EndedError) or isinstance(before, EndedError | None):
        write_text(_path(config), as_text(error, memory=memory))


def read_failure(config: Path) -> TiltboxError | None:
    """The error that ended the training, if it was one of ours."""
    return from_text(_text(config))


def forget_failure(config: Path) -> None:
    """To be called before a training starts."""
    _path(config).unlink(missing_ok=True)


def require_hope(config: Path) -> None:
    """End a repetition by Snakemake (``retries``) that would probably end like the attempt before.

    Raises:
        TrainingError: The error that ended that attempt: it diverged, or memory ran out and there is
            no more now.
    """
    if os.environ.get(ATTEMPT, "1") != "1":
        failure = read_failure(config)
        if isinstance(failure, TrainingError) and not isinstance(failure, EndedError):
            lacked = json.loads(_text(config)).get("memory")
            if lacked is None or allowed_memory() <= lacked:
                raise failure
    forget_failure(config)  # or a later repetition might take it for the end of the attempt before


def _text(config: Path) -> str:
    try:
        return _path(config).read_text()
    except OSError:
        return ""


def _path(config: Path) -> Path:
    return config.with_name("failure.json")
