"""Where MLflow keeps its records: ``mlflow.db`` and ``mlartifacts/`` of the current folder, or a server.

``mlflow ui`` without arguments looks in the current folder, too. Processes that create the database at the
same time break it, so they open it one at a time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from tiltbox.errors import SettingsError
from tiltbox.files.atomic import write_lock
from tiltbox.layout import TRACKING_DATABASE
from tiltbox.tracking import views
from tiltbox.tracking.local_files import artifact_repository

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow would wait for two minutes and retry seven times. Values set by the user are kept.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
# Seconds that a training waits, before it starts, to learn whether its experiment was deleted. A silent
# server is asked later. The database of the folder is created first, which takes a while on a busy machine.
FIRST_WORD, FIRST_WORD_HERE = 5.0, 60.0

log = logging.getLogger("tiltbox")


def server() -> str | None:
    """The address of a server or of another database, if one is set."""
    return os.environ.get("MLFLOW_TRACKING_URI")


def is_remote() -> bool:
    """Whether files go through a server."""
    return urlsplit(server() or "").scheme in ("http", "https")


def client() -> MlflowClient:
    """A client, opened by one process at a time, since the first one creates or upgrades the database.

    Raises:
        SettingsError: MLflow is not installed.
    """
    _require_mlflow()
    from mlflow import MlflowClient
    from mlflow.store.artifact import artifact_repository_registry

    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    artifact_repository_registry._artifact_repository_registry.register(
        "mlflow-artifacts", artifact_repository
    )
    with write_lock(TRACKING_DATABASE):
        return MlflowClient(server() or f"sqlite:///{TRACKING_DATABASE.absolute()}")


def _require_mlflow() -> None:
    """An environment that was set up for single stages is without it."""
    if find_spec("mlflow") is None:
        remedy = (
            "do without --track: `tiltbox track` logs finished trainings later, where MLflow is installed"
        )
        raise SettingsError("MLflow", "not installed in this environment", remedy)


def prepare(experiment: str) -> str:
    """Create the database and the experiment if they are missing; returns the experiment's id.

    Raises:
        SettingsError: The experiment was deleted in MLflow, or MLflow is not installed.
    """
    mlflow = client()
    with write_lock(TRACKING_DATABASE):
        return experiment_id(mlflow, experiment)


def experiment_id(mlflow: MlflowClient, name: str) -> str:
    """The id of the experiment, which is created if missing; to be called by one process at a time."""
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        place = None if server() else f"mlflow-artifacts:/{quote(name)}"
        number, known = mlflow.create_experiment(name, artifact_location=place), {}
    elif found.lifecycle_stage != "active":
        remedy = f"mlflow experiments restore --experiment-id {found.experiment_id} brings it back"
        raise SettingsError(f"experiment '{name}'", "was deleted in MLflow", remedy)
    else:
        number, known = found.experiment_id, found.tags
    for key, value in views.tags(number).items():
        if key not in known:
            mlflow.set_experiment_tag(number, key, value)
    return number


def require_target(track: str) -> None:
    """Raise SettingsError if ``track`` does not name a run."""
    target(track)


def require_experiment(track: str) -> None:
    """Raise SettingsError if MLflow is missing, or says in time that ``track``'s experiment was deleted."""
    patience = FIRST_WORD if is_remote() else FIRST_WORD_HERE
    within(patience, "the start of this training", lambda: prepare(target(track)[0]))


def target(track: str) -> tuple[str, str]:
    """Experiment and run."""
    experiment, slash, name = track.partition("/")
    if not (experiment and slash and name) or "'" in name:
        raise SettingsError(
            "--track", f"'{track}' does not name a run", "give EXPERIMENT/RUN, such as mini/yoloms-xs-current"
        )
    return experiment, name


def in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def within(seconds: float, what: str, job: Callable[[], object]) -> None:
    """Do the job, and warn if it fails or takes longer; then it is left running.

    Raises:
        SettingsError: The job raised it in time: the user must know.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)  # a daemon does not keep the process from ending
    thread.start()
    thread.join(seconds)
    if raised and isinstance(raised[0], SettingsError):
        raise raised[0]
    if raised or thread.is_alive():
        why = in_a_line(raised[0]) if raised else f"no answer for {seconds:.0f} s"
        log.warning("MLflow did not accept %s: %s", what, why)
