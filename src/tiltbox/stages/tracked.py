"""Logs what an evaluation found to MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiltbox import tracking

PATIENCE = 60.0  # seconds for MLflow to take scores, which are in their files anyway


def require_run(run: str) -> None:
    """Refuse, before any work is done, a run that scores cannot be logged to.

    Args:
        run: As ``experiment/run``.

    Raises:
        SettingsError: It has another form, or its experiment cannot be used.
    """
    tracking.require_target(run)
    tracking.require_experiment(run)


def log_scores(run: str, metrics: dict[str, Any], files: Sequence[Path], results: Path) -> None:
    """Log the scores of a detector with their files; a failure of the server is only a warning.

    Args:
        run: As ``experiment/run``.
        results: The folder of the detector's results, with its training in ``train``.
    """
    training = results / "train"

    def log() -> None:
        if tracking.has_journal(training):  # the server may have been down while it ran
            tracking.catch_up(training)
        tracking.log_evaluation(run, metrics, list(files))

    tracking.within(PATIENCE, "these scores (`tiltbox track` logs them later)", log)
