"""Passes errors that a user can fix from a training process to the one that started it."""

from __future__ import annotations

import json
from pathlib import Path

from tiltbox import errors
from tiltbox.errors import TiltboxError
from tiltbox.files.atomic import write_json


def write_failure(config: Path, error: TiltboxError) -> None:
    """Write the error beside the configuration of the training that it ended."""
    parts = {"where": error.where, "problem": error.problem, "remedy": error.remedy}
    write_json(_path(config), {"kind": type(error).__name__, **parts})


def read_failure(config: Path) -> TiltboxError | None:
    """The error that ended the training, if it was one of ours; it can be read once."""
    path = _path(config)
    if not path.exists():
        return None
    parts = json.loads(path.read_text())
    path.unlink()
    return getattr(errors, parts.pop("kind"))(**parts)


def _path(config: Path) -> Path:
    return config.with_name("failure.json")
