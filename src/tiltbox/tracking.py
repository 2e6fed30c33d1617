"""MLflow: one experiment per dataset, one run per variant, shared by the stages.

A run is found by its tags, so stages need not pass it on. Training with other settings begins a new
run; the older one stays for comparison. Everything goes to ``mlflow.db`` and ``mlartifacts/`` in the
current folder, where ``mlflow ui`` looks by itself, or to the server that MLFLOW_TRACKING_URI names. The
database is created once by :func:`prepare` before stages write in parallel: several processes that
create it at once break it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from filelock import FileLock

from tiltbox.errors import SettingsError
from tiltbox.files import whole_file
from tiltbox.layout import TRACKING_DATABASE, TRACKING_FILES
from tiltbox.settings.schedules import Schedule
from tiltbox.settings.variants import Variant

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONFIG_HASH = "config_hash"
_VARIANT = "variant"


def prepare(experiment: str) -> str:
    """Create the database and the experiment where they are missing; returns the experiment's id.

    Raises:
        SettingsError: The experiment was deleted in MLflow.
    """
    with _alone():
        return _experiment(_client(), experiment)


def begin_training(track: str, variant: Variant, schedule: Schedule, config_hash: str) -> str:
    """The run to log a training to: the variant's latest if it has these settings or none yet, else new.

    Args:
        track: ``experiment/run``, as in all functions here.

    Returns:
        The run's id, for :func:`log_epoch`.
    """
    client, run = _client(), _run(track, config_hash)
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
    run = _run(track)
    known = {key: value for key, value in metrics.items() if value is not None}
    _log_metrics(run.info.run_id, known, step=0)
    for path in artifacts:
        _log_artifact(run, path)


def _log_artifact(run, path: Path) -> None:
    """Put a file where the server that shows the run will look for it.

    The server keeps files of ``mlflow-artifacts:`` addresses in its own folder, so they are found again
    when the project has moved; without a server MLflow's client cannot write to such addresses.
    """
    address = urlsplit(run.info.artifact_uri)
    if _server() or address.scheme != "mlflow-artifacts":
        _client().log_artifact(run.info.run_id, str(path))
        return
    with whole_file(TRACKING_FILES / address.path.lstrip("/") / path.name) as temporary:
        shutil.copyfile(path, temporary)


def _log_metrics(run_id: str, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    logged = [Metric(_metric_name(key), value, now, step) for key, value in metrics.items()]
    _client().log_batch(run_id, metrics=logged)  # a hundred times faster than value by value


def _metric_name(name: str) -> str:
    """MLflow takes letters, digits and ``_-. :/``; classes may have other signs in their names.

    >>> _metric_name("AP50/car (parked)")
    'AP50/car _parked_'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)


def _run(track: str, config_hash: str | None = None):
    """The variant's latest run; a new one if there is none or, given a hash, if its settings were others."""
    experiment, name = _target(track)
    with _alone():  # a variant's first stages may come at the same time
        client = _client()
        place = _experiment(client, experiment)
        query = f"tags.{_VARIANT} = '{name}'"
        found = client.search_runs([place], query, order_by=["start_time DESC"], max_results=1)
        if found and config_hash in (None, found[0].data.tags.get(_CONFIG_HASH, config_hash)):
            return found[0]
        # Complete from the start: stages come and go, and in between nothing is running.
        run = client.create_run(place, tags={_VARIANT: name}, run_name=name)
        client.set_terminated(run.info.run_id)
        return client.get_run(run.info.run_id)


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if _server() else f"mlflow-artifacts:/{quote(name)}"
        return client.create_experiment(name, artifact_location=place)
    if found.lifecycle_stage != "active":
        remedy = f"mlflow experiments restore --experiment-id {found.experiment_id} brings it back"
        raise SettingsError(f"experiment '{name}'", "was deleted in MLflow", remedy)
    return found.experiment_id


def _target(track: str) -> tuple[str, str]:
    experiment, slash, name = track.partition("/")
    if not (experiment and slash and name) or "'" in name:
        raise SettingsError(
            "--track", f"'{track}' names no run", "give EXPERIMENT/RUN, such as mini/yoloms-xs-current"
        )
    return experiment, name


def _parameters(variant: Variant, schedule: Schedule) -> dict[str, str]:
    rows = {"": variant.model_dump(mode="json"), "schedule.": schedule.model_dump(mode="json")}
    plain = {f"{prefix}{key}": value for prefix, row in rows.items() for key, value in row.items()}
    plain["schedule.learning_rate"] = schedule.learning_rate
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}


def _alone() -> FileLock:
    return FileLock(f"{TRACKING_DATABASE}.lock")


def _server() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI")


def _client() -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(_server() or f"sqlite:///{TRACKING_DATABASE.absolute()}")


def git_commit() -> str:
    """The commit of the current folder, short, or ``unknown``."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return "unknown"
    return asked.stdout.strip() or "unknown"
