"""Files of runs and models without a server: in ``mlartifacts/``, where ``mlflow ui`` will look for them.

MLflow's server addresses its files as ``mlflow-artifacts:/…``, without a path of the machine, so they are
found again when the project has moved. MLflow's own client can only resolve them through a server. MLflow
finds what is defined here as a plugin (``mlflow.artifact_repository`` in pyproject.toml), so that
``mlflow.pyfunc.load_model("models:/…")`` works in the project's folder as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tiltbox.layout import TRACKING_FILES

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def artifact_repository(
    address: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """The repository where MLflow reads and writes files: its server, or the folder beside the database."""
    from mlflow import get_tracking_uri
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    place = tracking_uri or get_tracking_uri()
    if urlsplit(place).scheme in ("http", "https"):
        return MlflowArtifactsRepository(address, tracking_uri=place, registry_uri=registry_uri)
    return LocalArtifactRepository(str(local_folder(address)))


def local_folder(address: str) -> Path:
    """The folder in which the server keeps the files of an ``mlflow-artifacts:`` address."""
    return (TRACKING_FILES / unquote(urlsplit(address).path).lstrip("/")).absolute()
