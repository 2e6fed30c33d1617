"""Files of runs and models without a server: in ``mlartifacts/``, where ``mlflow ui`` will look for them.

The addresses that MLflow's server gives its files, ``mlflow-artifacts:/…``, hold no path of the machine, so
they are found again when the project has moved. MLflow's own client can only resolve them through a server.
What is defined here is found by MLflow as a plugin (``mlflow.artifact_repository`` in pyproject.toml), so
that ``mlflow.pyfunc.load_model("models:/…")`` works in the project's folder as well.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tiltbox.layout import TRACKING_FILES


def artifact_repository(address: str, tracking_uri: str | None = None, registry_uri: str | None = None):
    """What MLflow reads and writes files with: its server, or the folder beside the database."""
    from mlflow import get_tracking_uri
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    place = tracking_uri or get_tracking_uri()
    if urlsplit(place).scheme in ("http", "https"):
        return MlflowArtifactsRepository(address, tracking_uri=place, registry_uri=registry_uri)
    return LocalArtifactRepository(str(local_folder(address)))


def local_folder(address: str) -> Path:
    """The folder that the server keeps the files of an ``mlflow-artifacts:`` address in."""
    return (TRACKING_FILES / unquote(urlsplit(address).path).lstrip("/")).absolute()
