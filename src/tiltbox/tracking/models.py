"""Checkpoints as MLflow models: logged with their run, registered by detector, with an alias for each seed.

``mlflow.pyfunc.load_model("models:/mini-yoloms-xs-current@seed-0")`` gives a detector (:mod:`.serving`),
through a server or without one in the project's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tiltbox.layout import variant_and_seed
from tiltbox.tracking import serving
from tiltbox.tracking.journal import Journal
from tiltbox.tracking.local_files import local_folder
from tiltbox.tracking.runs import model_of
from tiltbox.tracking.store import client, is_remote, target

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run


def log_model(run_id: str, train: Path, journal: Journal) -> None:
    """Log and register the checkpoint of a finished training, unless that was done."""
    mlflow = client()
    run = mlflow.get_run(run_id)
    if model_of(run) is not None or not (train / "checkpoint.pth").exists():
        return
    model = _begun(run, journal)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), run_id, model.model_id, train, journal)
        _put(Path(folder), train / "checkpoint.pth", model)
    mlflow.finalize_logged_model(model.model_id, "READY")
    _register(run, model, journal)
    from mlflow.entities import LoggedModelOutput

    mlflow.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])  # last, to mark that all is done


def registered_name(track: str) -> str:
    """
    >>> registered_name("mini/yoloms-xs-current/seed-3")
    'mini-yoloms-xs-current'
    """
    experiment, name = target(track)
    return f"{experiment}-{variant_and_seed(name)[0]}"


def _begun(run: Run, journal: Journal) -> LoggedModel:
    """The model that was created for this run before, or a new one."""
    mlflow, experiment = client(), run.info.experiment_id
    found = mlflow.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'", max_results=1)
    if found:
        return found[0]
    detector, seed = variant_and_seed(target(journal.track)[1])
    params = {"variant": detector, "seed": str(seed), "image_size": str(journal.facts["image_size"])}
    name = f"{detector}-seed-{seed}" if seed else detector
    return mlflow.create_logged_model(
        experiment, name, run.info.run_id, params=params, model_type="oriented object detector"
    )


def _write(folder: Path, run_id: str, model_id: str, train: Path, journal: Journal) -> None:
    """Write MLmodel and what :mod:`.serving` reads, except for the checkpoint."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    image = TensorSpec(np.dtype(np.uint8), (-1, -1, 3))
    model = Model(run_id=run_id, model_id=model_id, signature=ModelSignature(Schema([image])))
    pyfunc.add_to_model(model, loader_module=serving.__name__, data=serving.DATA)
    (folder / serving.DATA).mkdir()
    (folder / serving.DATA / serving.FACTS).write_text(json.dumps(_facts(journal), indent=2) + "\n")
    model.save(str(folder / "MLmodel"))


def _facts(journal: Journal) -> dict[str, Any]:
    data = journal.facts["data"]
    return {
        "name": journal.facts["variant"],
        "variant": journal.variant.model_dump(mode="json"),
        "image_size": journal.facts["image_size"],
        "cutting": {
            "size": data["patch_size"],
            "overlap": data["overlap"],
            "rates": data["rates"],
            "iof": data["iof"],
        },
    }


def _put(folder: Path, checkpoint: Path, model: LoggedModel) -> None:
    """Store the files through the server, or in the folder where it will look, there as a link if
    possible."""
    if is_remote() or urlsplit(model.artifact_location).scheme != "mlflow-artifacts":
        shutil.copyfile(checkpoint, folder / serving.DATA / serving.CHECKPOINT)
        client().log_model_artifacts(model.model_id, str(folder))
        return
    place = local_folder(model.artifact_location)
    shutil.copytree(folder, place, dirs_exist_ok=True)
    to = place / serving.DATA / serving.CHECKPOINT
    to.unlink(missing_ok=True)
    try:
        os.link(checkpoint.resolve(), to)
    except OSError:  # on another drive
        shutil.copyfile(checkpoint, to)


def _register(run: Run, model: LoggedModel, journal: Journal) -> None:
    from mlflow.exceptions import MlflowException

    mlflow, name = client(), registered_name(journal.track)
    with suppress(MlflowException):  # it exists
        mlflow.create_registered_model(
            name, description=f"{journal.facts['variant']}, every training a version"
        )
    versions = mlflow.search_model_versions(f"name = '{name}'")
    version = next((each for each in versions if each.run_id == run.info.run_id), None)
    if version is None:
        version = mlflow.create_model_version(
            name, f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id, await_creation_for=0
        )
    mlflow.set_registered_model_alias(name, f"seed-{journal.facts['seed']}", version.version)
    link = [{"name": name, "version": version.version}]
    mlflow.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(link)})  # for its page
