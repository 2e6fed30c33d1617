"""MLflow's run of a training: started, followed by epochs, ended, scored.

A run is found by its tags, so stages need not pass it on. Everything here can be repeated: what MLflow
already knows stays as it is.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tiltbox.files.atomic import atomic_file, write_lock
from tiltbox.layout import TRACKING_DATABASE, variant_and_seed
from tiltbox.model.variant import ASIDE, Variant
from tiltbox.settings.schedules import Schedule
from tiltbox.tracking.local_files import local_folder
from tiltbox.tracking.store import client, experiment_id, is_remote, target

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag

SCORES = ("mAP", "AP50", "AP75")
TRAINING, FAILURE = "training", "failure"  # tags: a training's own mark; why it ended early
_CONFIG_HASH, _VARIANT, _BEGUN = "config_hash", "variant", "training_begun"  # tags by which runs are found
_NOTE = "mlflow.note.content"
_BATCH = 1000  # metrics that MLflow accepts at once
_COUNTED = ("epoch", "step")


def begin_training(
    track: str,
    variant: Variant,
    schedule: Schedule,
    facts: Mapping[str, Any],
    *,
    resumes: bool,
    training: str = "",
    begun: datetime | None = None,
    running: bool = True,
    command: str | None = None,
) -> str:
    """Make a run show that its training is running, and with what settings.

    It is the run of that ``training``, if there is one; else the one to continue, if training ``resumes``;
    else a run of these settings without any epoch, if there is one; else a new one.

    Args:
        track: ``experiment/run``, as in all functions here.
        facts: What train.json contains from the start: ``config_hash``, ``device``, ``data``, …
        training: The training's mark (:mod:`.journal`), which is unique.
        begun: When it was last started; None for now.
        running: Whether it runs; one that has ended is only described.
        command: The command that started it, as typed.

    Returns:
        The run's id, for the other functions.
    """
    experiment, name = target(track)
    mlflow, begun = client(), begun or datetime.now(UTC)
    with write_lock(TRACKING_DATABASE):
        place = experiment_id(mlflow, experiment)
        run = _run_of(mlflow, place, training) or _left(mlflow, place, name, facts, resumes, training)
        if run is None:
            tags = {_VARIANT: name} | ({TRAINING: training} if training else {})
            run = mlflow.create_run(place, start_time=_milliseconds(begun), tags=tags, run_name=name)
    run_id: str = run.info.run_id
    if running and run.info.status != "RUNNING":
        mlflow.update_run(run_id, status="RUNNING")
    if running and FAILURE in run.data.tags:
        mlflow.delete_tag(run_id, FAILURE)
    own = {TRAINING: training, "command": command}
    marks = _marks(name, variant, schedule, facts, begun) | {
        key: value for key, value in own.items() if value
    }
    _describe(run, _parameters(variant, schedule, facts), marks)
    _log_data(run, f"{experiment} train", facts["data"].get("contents"), "training")
    return run_id


def log_history(run_id: str, history: Path) -> None:
    """Log the epochs of a history.csv that are not logged yet.

    Columns that begin with ``val_`` are logged as ``val/…``, the others as ``train/…``.
    """
    if not history.exists():
        return
    logged = {point.step for point in client().get_metric_history(run_id, "train/loss")}
    with history.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if _is_whole(row)]
    _log(
        run_id,
        [
            metric
            for row in rows
            if int(row["epoch"]) not in logged
            for metric in _metrics(
                {_curve(key): float(row[key]) for key in row if key not in _COUNTED and row[key]},
                step=int(row["epoch"]),
            )
        ],
    )


def log_usage(run_id: str, samples: Iterable[Mapping[str, float]]) -> None:
    """Log the samples of :mod:`.usage` that are not logged yet."""
    samples = list(samples)
    if not samples:
        return
    first = next(key for key in samples[0] if key != "time")
    logged = {point.step for point in client().get_metric_history(run_id, first)}
    _log(
        run_id,
        [
            metric
            for number, sample in enumerate(samples)
            if number not in logged
            for metric in _metrics(
                {key: value for key, value in sample.items() if key != "time"}, number, int(sample["time"])
            )
        ],
    )


def log_training(run_id: str, out: Path, counts: Mapping[str, int], *, ended: datetime | None = None) -> None:
    """Log the results of a finished training: its resolved configuration, history and facts, and its size."""
    log_history(run_id, out / "history.csv")
    names = ("config.py", "history.csv", "train.json", "provenance.json")
    _log(run_id, _metrics(_size_metrics(counts)))
    _log_files(client().get_run(run_id), filter(Path.is_file, (out / name for name in names)))
    end_training(run_id, "FINISHED", ended=ended)


def end_training(
    run_id: str, state: str = "FAILED", reason: str | None = None, *, ended: datetime | None = None
) -> None:
    """Make the run show how its training ended: FINISHED, FAILED or KILLED, and why."""
    mlflow = client()
    if reason:
        mlflow.set_tag(run_id, FAILURE, reason)
        mlflow.set_tag(run_id, _NOTE, reason)
    if mlflow.get_run(run_id).info.status != state:
        mlflow.set_terminated(run_id, state, end_time=None if ended is None else _milliseconds(ended))


def kill_runs(track: str, trainings: Iterable[str]) -> None:
    """Make the runs of trainings that were killed and not resumed show it."""
    mlflow = client()
    place = experiment_id(mlflow, target(track)[0])
    for training in trainings:
        run = _run_of(mlflow, place, training)
        if run is not None and run.info.status == "RUNNING":
            end_training(run.info.run_id, "KILLED", "was killed and replaced by another training")


def log_evaluation(track: str, metrics: Mapping[str, Any], artifacts: Iterable[Path]) -> None:
    """Log the figures of a metrics.json, overall and by class, and files such as tables and pictures."""
    log_scores(_evaluated_run(track), metrics, artifacts)


def log_scores(run: Run, metrics: Mapping[str, Any], artifacts: Iterable[Path]) -> None:
    """The same for a known run."""
    figures = {key: value for key, value in _figures(metrics).items() if value is not None}
    for name, row in metrics["classes"].items():
        figures |= {f"{key}/{name}": value for key, value in _figures(row).items() if value is not None}
    known = run.data.metrics
    new = {key: value for key, value in figures.items() if known.get(_metric_name(key)) != value}
    name = " ".join(filter(None, (metrics.get("dataset"), metrics.get("split")))) or "unnamed"
    digest = metrics.get("labels")
    model = model_of(run)
    on = {"model_id": model, "dataset_name": name, "dataset_digest": digest} if model and digest else {}
    _log(run.info.run_id, _metrics(new, **on))
    _log_files(run, artifacts)
    _log_data(run, name, digest, "test")
    _set_note(run.info.run_id, _note(metrics))


def _set_note(run_id: str, text: str) -> None:
    """Show a text on the run's page."""
    from mlflow.exceptions import MlflowException

    try:
        client().set_tag(run_id, _NOTE, text)
    except MlflowException:  # two that add it at the same moment: MLflow's database refuses one of them
        client().set_tag(run_id, _NOTE, text)


def model_of(run: Run) -> str | None:
    """The id of the model that the run's training gave (:mod:`.models`)."""
    found = run.outputs.model_outputs if run.outputs else []
    return found[0].model_id if found else None


# what is found ------------------------------------------------------------------------------------------


def _run_of(mlflow: MlflowClient, place: str, training: str) -> Run | None:
    if not training:
        return None
    return next(iter(mlflow.search_runs([place], f"tags.{TRAINING} = '{training}'", max_results=1)), None)


def _left(
    mlflow: MlflowClient, place: str, name: str, facts: Mapping[str, Any], resumes: bool, training: str
) -> Run | None:
    """The latest run of these settings, if the training may continue in it."""
    run = _latest(mlflow, place, name, facts["config_hash"])
    if run is None or (training and run.data.tags.get(TRAINING, training) != training):
        return None
    return run if resumes or not _has_epochs(run) else None


def _evaluated_run(track: str) -> Run:
    """The run of the variant's latest training; a new one if it was not trained here."""
    experiment, name = target(track)
    mlflow = client()
    with write_lock(TRACKING_DATABASE):  # two evaluations may come at the same time
        place = experiment_id(mlflow, experiment)
        run = _latest(mlflow, place, name)
        if run is None:
            run = mlflow.create_run(place, tags={_VARIANT: name}, run_name=name)
            mlflow.set_terminated(run.info.run_id)
        return run


def _latest(mlflow: MlflowClient, place: str, name: str, config_hash: str | None = None) -> Run | None:
    """The variant's run in which training began last, of all or of those with the given settings."""
    query = f"tags.{_VARIANT} = '{name}'"
    if config_hash is not None:
        query += f" and tags.{_CONFIG_HASH} = '{config_hash}'"
    order = [f"tags.{_BEGUN} DESC", "start_time DESC"]
    return next(iter(mlflow.search_runs([place], query, order_by=order, max_results=1)), None)


def _has_epochs(run: Run) -> bool:
    return any(key.startswith("train/") for key in run.data.metrics)


def _describe(run: Run, parameters: Mapping[str, str], marks: Mapping[str, str]) -> None:
    known = run.data.params  # set before a resume; MLflow refuses to change a parameter
    # Pages open on the metric that was logged first: so log the score, though it is not known yet.
    first = {} if "AP50" in run.data.metrics else {"AP50": math.nan}
    client().log_batch(
        run.info.run_id,
        metrics=_metrics(first),
        params=_params({key: value for key, value in parameters.items() if key not in known}),
        tags=_tags(marks),
    )


# what is logged -----------------------------------------------------------------------------------------


def _log_data(run: Run, name: str, digest: str | None, context: str) -> None:
    """Name the images that a run used, once for each content."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = (
        {(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs} if run.inputs else ()
    )
    if digest and (name, digest) not in known:
        source = json.dumps({"uri": f"data/{name.partition(' ')[0]}"})
        data = Dataset(name, digest, source_type="local", source=source)
        tags = [InputTag("mlflow.data.context", context)]
        _log_inputs(run.info.run_id, [DatasetInput(data, tags)])


def _log_inputs(run_id: str, inputs: list[DatasetInput]) -> None:
    """One process at a time: MLflow fails if two runs name the same images at the same moment."""
    from mlflow.exceptions import MlflowException

    mlflow = client()
    with write_lock(TRACKING_DATABASE):
        try:
            mlflow.log_inputs(run_id, datasets=inputs)
        except MlflowException:  # the other one is on another machine and has named them by now
            mlflow.log_inputs(run_id, datasets=inputs)


def _note(metrics: Mapping[str, Any]) -> str:
    """The text at the top of a run's page."""
    rows = {"all": metrics, **metrics["classes"]}
    known = {name: row for name, row in rows.items() if row["AP50"] is not None}
    lines = [
        f"| {name} | " + " | ".join(f"{100 * row[key]:.2f}" for key in SCORES) + " |"
        for name, row in known.items()
    ]
    return "\n".join([f"| class | {' | '.join(SCORES)} |", "|:--|--:|--:|--:|", *lines])


def _figures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """AP as fractions, the angle error in degrees."""
    error = row.get("angle_error") or {}
    return {key: row[key] for key in SCORES} | {
        f"angle_error_{key}": error.get(key) for key in ("median", "p90")
    }


def _size_metrics(counts: Mapping[str, int]) -> dict[str, float]:
    return {"params_M": counts["params"] / 1e6, "flops_G": counts["flops"] / 1e9}


def _log_files(run: Run, paths: Iterable[Path]) -> None:
    """Log the files that the run does not have, or has in another size."""
    paths = list(paths)
    if paths:
        known = {file.path: file.file_size for file in client().list_artifacts(run.info.run_id)}
        for path in paths:
            if known.get(path.name) != path.stat().st_size:
                _log_file(run, path)


def _log_file(run: Run, path: Path) -> None:
    """Log a file through the server, or as a whole into the folder where a server will look."""
    address = run.info.artifact_uri
    if is_remote() or urlsplit(address).scheme != "mlflow-artifacts":
        client().log_artifact(run.info.run_id, str(path))
        return
    with atomic_file(local_folder(address) / path.name) as temporary:
        shutil.copyfile(path, temporary)


def _log(run_id: str, metrics: Iterable[Metric]) -> None:
    """Log many metrics at once, which is a hundred times faster than value by value."""
    metrics = list(metrics)
    for start in range(0, len(metrics), _BATCH):
        client().log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _metrics(values: Mapping[str, float], step: int = 0, time: int | None = None, **on: str) -> list[Metric]:
    """Entries; ``on`` says which model on which data they are from."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    time = time or get_current_time_millis()
    return [Metric(_metric_name(key), value, time, step, **on) for key, value in values.items()]


def _params(values: Mapping[str, str]) -> list[Param]:
    from mlflow.entities import Param

    return [Param(*item) for item in values.items()]


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(*item) for item in values.items()]


def _metric_name(name: str) -> str:
    """MLflow accepts letters, digits and ``_-. :/``; names of classes may have other characters.

    >>> _metric_name("AP50/car (parked)")
    'AP50/car _parked_'
    """
    return re.sub(r"[^\w\-. :/]", "_", name)


def _curve(column: str) -> str:
    """
    >>> _curve("loss"), _curve("val_AP50")
    ('train/loss', 'val/AP50')
    """
    return f"val/{column.removeprefix('val_')}" if column.startswith("val_") else f"train/{column}"


def _is_whole(row: Mapping[str, str | None]) -> bool:
    """Whether a row is complete, not the beginning of one that is being written."""
    return None not in row.values()


def _milliseconds(when: datetime) -> int:
    return round(1000 * when.timestamp())


def _marks(
    name: str, variant: Variant, schedule: Schedule, facts: Mapping[str, Any], begun: datetime
) -> dict[str, str]:
    return {
        _CONFIG_HASH: facts["config_hash"],
        _BEGUN: begun.isoformat(),
        "size": variant.size,
        "series": variant.series,
        "detector": variant_and_seed(name)[0],  # of all seeds, to group runs by
        "seed": str(schedule.seed),
        "git_commit": facts["git_commit"],
        "mlflow.source.name": "tiltbox train",  # a list of runs shows what follows the last slash
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": facts["git_commit"],
    }


def _parameters(variant: Variant, schedule: Schedule, facts: Mapping[str, Any]) -> dict[str, str]:
    """What runs may differ in; the weights that training starts from are the actual ones, not the setting."""
    rows = {
        "": variant.model_dump(mode="json", exclude=ASIDE),
        "schedule.": schedule.model_dump(mode="json", exclude={"pretrained"}),
        "data.": facts["data"],
        "version.": facts["versions"],
    }
    plain = {f"{prefix}{key}": value for prefix, row in rows.items() for key, value in row.items()}
    plain["schedule.learning_rate"] = schedule.learning_rate
    plain |= {"pretrained": facts["pretrained"] or "none", "device": facts["device"]}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
