"""MLflow: one experiment per dataset, one run per variant, shared by the stages.

A run is found by its tags, so stages need not pass it on. Training with other settings begins a new
run; the older one stays for comparison. The database (``mlflow.db`` in the current folder, where
``mlflow ui`` looks by itself, or whatever MLFLOW_TRACKING_URI names) is created once by
:func:`prepare` before stages write in parallel: several processes that create it at once break it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from tiltbox.errors import SettingsError
from tiltbox.layout import TRACKING_DATABASE
from tiltbox.settings.schedules import Schedule
from tiltbox.settings.variants import Variant

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONFIG_HASH = "config_hash"
_VARIANT = "variant"


def prepare(experiment: str) -> str:
    """Create the database and the experiment where they are missing; returns the experiment's id."""
    with FileLock(f"{TRACKING_DATABASE}.lock"):
        client = _client()
        found = client.get_experiment_by_name(experiment)
        return found.experiment_id if found else client.create_experiment(experiment)


def begin_training(track: str, variant: Variant, schedule: Schedule, config_hash: str) -> str:
    """The run to log a training to: the variant's latest if it has these settings or none yet, else new.

    Args:
        track: ``experiment/run``, as in all functions here.

    Returns:
        The run's id, for :func:`log_epoch`.
    """
    client, run = _client(), _latest_run(track)
    if run is None or run.data.tags.get(_CONFIG_HASH, config_hash) != config_hash:
        run = _new_run(track)
    tags = {
        _CONFIG_HASH: config_hash,
        "size": variant.size,
        "generation": variant.generation,
        "git_commit": git_commit(),
    }
    for key, value in tags.items():
        client.set_tag(run.info.run_id, key, value)
    for key, value in _parameters(variant, schedule).items():
        if key not in run.data.params:  # set before a resume; MLflow refuses to change a parameter
            client.log_param(run.info.run_id, key, value)
    return run.info.run_id


def log_epoch(run_id: str, row: Mapping[str, float]) -> None:
    """Log the losses and the learning rate of one epoch."""
    _log_metrics(
        run_id, {f"train/{key}": row[key] for key in row if key not in ("epoch", "step")}, int(row["epoch"])
    )


def log_training(track: str, out: Path, counts: Mapping) -> None:
    """Log what a finished training left: its resolved configuration, history and facts, and its size."""
    _log_results(
        track, _size_metrics(counts), [out / name for name in ("config.py", "history.csv", "train.json")]
    )


def log_complexity(track: str, counts: Mapping) -> None:
    """Log the figures of a complexity.json."""
    _log_results(track, _size_metrics(counts))


def log_evaluation(track: str, metrics: Mapping, artifacts: Iterable[Path]) -> None:
    """Log the figures of a metrics.json, overall and by class, and files such as tables and pictures."""
    figures = {key: metrics[key] for key in ("mAP", "AP50", "AP75")}
    figures |= {f"AP50/{name}": row["AP50"] for name, row in metrics["classes"].items()}
    _log_results(track, figures, artifacts)


def _size_metrics(counts: Mapping) -> dict[str, float]:
    return {"params_M": counts["params"] / 1e6, "flops_G": counts["flops"] / 1e9}


def _log_results(track: str, metrics: Mapping[str, float | None], artifacts: Iterable[Path] = ()) -> None:
    run_id = (_latest_run(track) or _new_run(track)).info.run_id
    _log_metrics(run_id, {key: value for key, value in metrics.items() if value is not None}, step=0)
    client = _client()
    for path in artifacts:
        client.log_artifact(run_id, str(path))


def _log_metrics(run_id: str, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    # One batch: a hundred times faster than value by value.
    _client().log_batch(run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])


def _latest_run(track: str):
    experiment, name = _target(track)
    query = f"tags.{_VARIANT} = '{name}'"
    runs = _client().search_runs([prepare(experiment)], query, order_by=["start_time DESC"], max_results=1)
    return runs[0] if runs else None


def _new_run(track: str):
    experiment, name = _target(track)
    client = _client()
    run = client.create_run(prepare(experiment), tags={_VARIANT: name}, run_name=name)
    client.set_terminated(run.info.run_id)  # stages come and go; in between nothing is running
    return client.get_run(run.info.run_id)


def _target(track: str) -> tuple[str, str]:
    experiment, slash, name = track.partition("/")
    if not (experiment and slash and name):
        raise SettingsError(
            "--track", f"'{track}' names no run", "give EXPERIMENT/RUN, such as mini/yoloms-xs-current"
        )
    return experiment, name


def _parameters(variant: Variant, schedule: Schedule) -> dict[str, str]:
    rows = {"": variant.model_dump(mode="json"), "schedule.": schedule.model_dump(mode="json")}
    plain = {f"{prefix}{key}": value for prefix, row in rows.items() for key, value in row.items()}
    plain["schedule.learning_rate"] = schedule.learning_rate
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}


def _client() -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{TRACKING_DATABASE}"))


def git_commit() -> str:
    """The commit of the current folder, short, or ``unknown``."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"
