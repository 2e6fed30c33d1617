"""Errors that a user can fix, handed from a training process to its caller and to its repetitions."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tiltbox import errors
from tiltbox.errors import EndedError, TiltboxError, TrainingError
from tiltbox.files.atomic import write_json

ATTEMPT = "TILTBOX_ATTEMPT"  # the variable that counts how often Snakemake has started the same job


def write_failure(config: Path, error: TiltboxError) -> None:
    """Write the error beside the configuration of the training that it ended."""
    parts = {"where": error.where, "problem": error.problem, "remedy": error.remedy}
    write_json(_path(config), {"kind": type(error).__name__, **parts})


def read_failure(config: Path) -> TiltboxError | None:
    """The error that ended the training, if it was one of ours."""
    path = _path(config)
    if not path.exists():
        return None
    parts = json.loads(path.read_text())
    return getattr(errors, parts.pop("kind"))(**parts)


def forget_failure(config: Path) -> None:
    """To be called before a training starts."""
    _path(config).unlink(missing_ok=True)


def require_hope(config: Path) -> None:
    """End a repetition by Snakemake (``retries``) of a training that would end like the attempt before.

    Raises:
        TrainingError: The error that ended that attempt: it diverged, or memory ran out.
    """
    failure = read_failure(config)
    again = int(os.environ.get(ATTEMPT, "1")) > 1
    if again and isinstance(failure, TrainingError) and not isinstance(failure, EndedError):
        raise failure


def _path(config: Path) -> Path:
    return config.with_name("failure.json")
