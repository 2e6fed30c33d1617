"""Errors that a user can fix, handed from a training process to its caller and to its repetitions."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tiltbox import errors
from tiltbox.errors import EndedError, TiltboxError, TrainingError
from tiltbox.files.atomic import write_json

ATTEMPT = "TILTBOX_ATTEMPT"  # the variable that counts how often a run of Snakemake has started the same job


def write_failure(config: Path, error: TiltboxError) -> None:
    """Write the error beside the configuration of the training that it ended.

    If an error in one process ended the others, it stays.
    """
    before = read_failure(config)
    if not isinstance(error, EndedError) or isinstance(before, EndedError | None):
        parts = {"where": error.where, "problem": error.problem, "remedy": error.remedy}
        write_json(_path(config), {"kind": type(error).__name__, **parts})


def read_failure(config: Path) -> TiltboxError | None:
    """The error that ended the training, if it was one of ours."""
    try:
        parts = json.loads(_path(config).read_text())
        return getattr(errors, parts.pop("kind"))(**parts)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # none, or of another version
        return None


def forget_failure(config: Path) -> None:
    """To be called before a training starts."""
    _path(config).unlink(missing_ok=True)


def require_hope(config: Path) -> None:
    """End a repetition by Snakemake (``retries``) that would probably end like the attempt before.

    Raises:
        TrainingError: The error that ended that attempt: it diverged, or memory ran out.
    """
    if os.environ.get(ATTEMPT, "1") != "1":
        failure = read_failure(config)
        if isinstance(failure, TrainingError) and not isinstance(failure, EndedError):
            raise failure
    forget_failure(config)  # or a later repetition might take it for the end of the attempt before


def _path(config: Path) -> Path:
    return config.with_name("failure.json")
