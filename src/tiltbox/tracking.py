"""MLflow: one experiment per dataset, one run per variant, shared by the stages.

A run is found by its tags, so stages need not pass it on. A training begins a new run unless it resumes
one; older runs stay for comparison. A run is RUNNING while its training runs, then FINISHED or FAILED.

Everything goes to ``mlflow.db`` and ``mlartifacts/`` in the current folder, where ``mlflow ui`` looks by
itself, or to the server that MLFLOW_TRACKING_URI names. Processes that create the database at once break
it: all of them open it one at a time.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from tiltbox.errors import SettingsError
from tiltbox.files import only_writer, whole_file
from tiltbox.layout import TRACKING_DATABASE, TRACKING_FILES, variant_and_seed
from tiltbox.provenance import command_line
from tiltbox.settings.schedules import Schedule
from tiltbox.settings.variants import Variant

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SCORES = ("mAP", "AP50", "AP75")
_CONFIG_HASH, _VARIANT, _BEGUN = "config_hash", "variant", "training_begun"  # tags that runs are found by
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"  # not GenAI: MLflow opens on runs

log = logging.getLogger("tiltbox")


def prepare(experiment: str) -> str:
    """Create the database and the experiment where they are missing; returns the experiment's id.

    Raises:
        SettingsError: The experiment was deleted in MLflow.
    """
    client = _client()
    with only_writer(TRACKING_DATABASE):
        return _experiment(client, experiment)


def begin_training(track: str, variant: Variant, schedule: Schedule, facts: Mapping, *, resumes: bool) -> str:
    """Have a run say that it is running, and with what: the one to go on with, if training ``resumes``.

    Else it is a new one, save that a run of these settings without any epoch is used first.

    Args:
        track: ``experiment/run``, as in all functions here.
        facts: What train.json holds from the start: ``config_hash``, ``device``, ``data``, …

    Returns:
        The run's id, for :func:`log_history`, :func:`log_training` and :func:`fail_training`.
    """
    experiment, name = _target(track)
    client = _client()
    with only_writer(TRACKING_DATABASE):
        place = _experiment(client, experiment)
        run = _latest(client, place, name, facts["config_hash"])
        if run is None or (not resumes and _has_epochs(run)):
            run = client.create_run(place, tags={_VARIANT: name}, run_name=name)
    client.update_run(run.info.run_id, status="RUNNING")
    known = run.data.params  # set before a resume; MLflow refuses to change a parameter
    parameters = _parameters(variant, schedule, facts)
    _log_settings(
        run.info.run_id,
        params={key: value for key, value in parameters.items() if key not in known},
        tags={
            _CONFIG_HASH: facts["config_hash"],
            _BEGUN: datetime.now(UTC).isoformat(),
            "size": variant.size,
            "generation": variant.generation,
            "detector": variant_and_seed(name)[0],  # of all seeds, to group runs by
            "seed": str(schedule.seed),
            "git_commit": facts["git_commit"],
            "mlflow.source.name": command_line() or "tiltbox",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": facts["git_commit"],
        },
    )
    _log_data(run, f"{experiment} train", facts["data"].get("contents"), "training")
    return run.info.run_id


def log_history(run_id: str, history: Path) -> None:
    """Log the losses and the learning rate of those epochs of a history.csv that are not logged yet."""
    logged = {point.step for point in _client().get_metric_history(run_id, "train/loss")}
    with history.open(newline="") as stream:
        for row in csv.DictReader(stream):
            epoch = int(row["epoch"])
            if epoch not in logged:
                values = {
                    _of_epoch(key): float(row[key])
                    for key in row
                    if row[key] and key not in ("epoch", "step")
                }
                _log_metrics(run_id, values, epoch)


def _of_epoch(column: str) -> str:
    """
    >>> _of_epoch("loss"), _of_epoch("val_AP50")
    ('train/loss', 'val/AP50')
    """
    return column.replace("val_", "val/") if column.startswith("val_") else f"train/{column}"


def log_training(run_id: str, out: Path, counts: Mapping) -> None:
    """Log what a finished training left: its resolved configuration, history and facts, and its size."""
    log_history(run_id, out / "history.csv")
    names = ("config.py", "history.csv", "train.json", "provenance.json")
    files = filter(Path.is_file, (out / name for name in names))
    _log_results(_client().get_run(run_id), _size_metrics(counts), files)
    _client().set_terminated(run_id, "FINISHED")


def fail_training(run_id: str) -> None:
    """Have the run say that its training broke off."""
    _client().set_terminated(run_id, "FAILED")


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Let an error of MLflow be a warning: hours of training are worth more than their record."""
    try:
        yield
    except Exception as error:
        log.warning("MLflow did not take %s: %s", what, " ".join(str(error).split()))


def log_evaluation(track: str, metrics: Mapping, artifacts: Iterable[Path]) -> None:
    """Log the figures of a metrics.json, overall and by class, and files such as tables and pictures."""
    figures = _figures(metrics)
    for name, row in metrics["classes"].items():
        figures |= {f"{key}/{name}": value for key, value in _figures(row).items()}
    run = _evaluated_run(track)
    _log_results(run, figures, artifacts)
    if metrics.get("labels"):
        _log_data(run, f"{metrics['dataset']} {metrics['split']}", metrics["labels"], "test")
    _client().set_tag(run.info.run_id, "mlflow.note.content", _note(metrics))


def _log_data(run: Run, name: str, digest: str | None, context: str) -> None:
    """Name the images that a run has used, once for each content."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = (
        {(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs} if run.inputs else ()
    )
    if digest and (name, digest) not in known:
        data = Dataset(
            name, digest, source_type="local", source=json.dumps({"uri": f"data/{name.split()[0]}"})
        )
        tags = [InputTag("mlflow.data.context", context)]
        _client().log_inputs(run.info.run_id, datasets=[DatasetInput(data, tags)])


def _note(metrics: Mapping) -> str:
    """What stands at the top of a run's page."""
    rows = {"all": metrics, **metrics["classes"]}
    known = {name: row for name, row in rows.items() if row["AP50"] is not None}
    lines = [
        f"| {name} | " + " | ".join(f"{100 * row[key]:.2f}" for key in SCORES) + " |"
        for name, row in known.items()
    ]
    return "\n".join([f"| class | {' | '.join(SCORES)} |", "|:--|--:|--:|--:|", *lines])


def _figures(row: Mapping) -> dict[str, float | None]:
    """AP as fractions, the angle error in degrees."""
    angles = {f"angle_error_{key}": row["angle_error"][key] for key in ("median", "p90")}
    return {key: row[key] for key in SCORES} | angles


def _size_metrics(counts: Mapping) -> dict[str, float]:
    return {"params_M": counts["params"] / 1e6, "flops_G": counts["flops"] / 1e9}


def _log_results(run: Run, metrics: Mapping[str, float | None], artifacts: Iterable[Path]) -> None:
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
    with whole_file(TRACKING_FILES / unquote(address.path).lstrip("/") / path.name) as temporary:
        shutil.copyfile(path, temporary)


def _log_metrics(run_id: str, metrics: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    logged = [Metric(_metric_name(key), value, now, step) for key, value in metrics.items()]
    _client().log_batch(run_id, metrics=logged)  # a hundred times faster than value by value


def _log_settings(run_id: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    _client().log_batch(
        run_id,
        params=[Param(*item) for item in params.items()],
        tags=[RunTag(*item) for item in tags.items()],
    )


def _metric_name(name: str) -> str:
    """MLflow takes letters, digits and ``_-. :/``; classes may have other signs in their names.

    >>> _metric_name("AP50/car (parked)")
    'AP50/car _parked_'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)


def _evaluated_run(track: str) -> Run:
    """The run of the variant's latest training; one of its own where it was not trained here."""
    experiment, name = _target(track)
    client = _client()
    with only_writer(TRACKING_DATABASE):  # two evaluations may come at the same time
        place = _experiment(client, experiment)
        run = _latest(client, place, name)
        if run is None:
            run = client.create_run(place, tags={_VARIANT: name}, run_name=name)
            client.set_terminated(run.info.run_id)
        return run


def _latest(client: MlflowClient, place: str, name: str, config_hash: str | None = None) -> Run | None:
    """The variant's run in which training began last, of all or of those with the given settings."""
    query = f"tags.{_VARIANT} = '{name}'"
    if config_hash is not None:
        query += f" and tags.{_CONFIG_HASH} = '{config_hash}'"
    order = [f"tags.{_BEGUN} DESC", "start_time DESC"]
    return next(iter(client.search_runs([place], query, order_by=order, max_results=1)), None)


def _has_epochs(run: Run) -> bool:
    return any(key.startswith("train/") for key in run.data.metrics)


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if _server() else f"mlflow-artifacts:/{quote(name)}"
        return client.create_experiment(name, artifact_location=place, tags={_KIND: _TRAINING})
    if found.lifecycle_stage != "active":
        remedy = f"mlflow experiments restore --experiment-id {found.experiment_id} brings it back"
        raise SettingsError(f"experiment '{name}'", "was deleted in MLflow", remedy)
    if _KIND not in found.tags:
        client.set_experiment_tag(found.experiment_id, _KIND, _TRAINING)
    return found.experiment_id


def require_target(track: str) -> None:
    """Raise SettingsError where ``track`` names no run."""
    _target(track)


def _target(track: str) -> tuple[str, str]:
    experiment, slash, name = track.partition("/")
    if not (experiment and slash and name) or "'" in name:
        raise SettingsError(
            "--track", f"'{track}' names no run", "give EXPERIMENT/RUN, such as mini/yoloms-xs-current"
        )
    return experiment, name


def _parameters(variant: Variant, schedule: Schedule, facts: Mapping) -> dict[str, str]:
    """What two runs may differ in; the weights that training starts from as they are, not as they are set."""
    rows = {
        "": variant.model_dump(mode="json", exclude={"pretrained", "checkpoint"}),
        "schedule.": schedule.model_dump(mode="json", exclude={"pretrained"}),
        "data.": facts["data"],
        "version.": facts["versions"],
    }
    plain = {f"{prefix}{key}": value for prefix, row in rows.items() for key, value in row.items()}
    plain["schedule.learning_rate"] = schedule.learning_rate
    plain |= {"pretrained": facts["pretrained"] or "none", "device": facts["device"]}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}


def _server() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI")


def _client() -> MlflowClient:
    """Alone, since the first client of a process creates the database or brings it up to date."""
    from mlflow import MlflowClient

    with only_writer(TRACKING_DATABASE):
        return MlflowClient(_server() or f"sqlite:///{TRACKING_DATABASE.absolute()}")


def git_commit() -> str:
    """The current folder's commit, short, ``-dirty`` where files were changed since; or ``unknown``."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return "unknown"
    return asked.stdout.strip() or "unknown"
