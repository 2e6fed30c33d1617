"""Brings MLflow up to date with the results of trainings and evaluations; repeating it changes nothing.

It is for a server that was down or slow, that was started after the trainings, or that is to show results
from elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from tiltbox.errors import DataError
from tiltbox.layout import run as run_name
from tiltbox.layout import variant_and_seed
from tiltbox.model.variant import Variant
from tiltbox.model.variants import read_variant
from tiltbox.provenance import SUFFIX, Provenance, beside, read_provenance
from tiltbox.records import Complexity, Metrics, Training, read_record
from tiltbox.settings.schedules import Schedule
from tiltbox.tracking.journal import Journal, read_journal, settled, usage_file
from tiltbox.tracking.models import log_model
from tiltbox.tracking.runs import (
    begin_training,
    end_training,
    kill_runs,
    log_history,
    log_scores,
    log_training,
    log_usage,
)
from tiltbox.tracking.store import client
from tiltbox.tracking.usage import read_samples

log = logging.getLogger("tiltbox")

_SHOWN = ("dota.txt", "pr_curves.csv", "confusion.csv")  # beside the metrics


def catch_up_all(results: Path, experiment: str | None = None) -> dict[str, str]:
    """Tell MLflow about all trainings in ``results``.

    Args:
        results: The results of a dataset, such as ``results/mini``, or of one of its detectors.
        experiment: None for the one that each training was started with, else the dataset that it was scored
            on, else the name of the folder.

    Returns:
        The states of the runs, by the names of the folders.

    Raises:
        DataError: The folder contains no training, or a training's record is malformed.
    """
    found = list(_trainings(results))
    if not found:
        raise DataError(
            results, "contains no training", "give the results of a dataset, such as results/mini"
        )
    states = {}
    for train in found:
        run_id = catch_up(train, experiment=experiment, unnamed=results.resolve().name)
        states[str(train.parent)] = client().get_run(run_id).info.status
    return states


def catch_up(train: Path, *, experiment: str | None = None, unnamed: str = "unnamed") -> str:
    """Tell MLflow about one training, by its folder, and about its evaluation; returns the run's id."""
    journal = _journal(train, experiment, unnamed)
    run_id = begin_training(
        journal.track,
        journal.variant,
        journal.schedule,
        journal.facts,
        resumes=True,
        training=journal.training,
        begun=journal.started,
        running=journal.state == "RUNNING",
        command=journal.command,
    )
    kill_runs(journal.track, journal.earlier)
    log_progress(run_id, train, _work(train, journal.facts["config_hash"]))
    if journal.state == "FINISHED":
        log_training(run_id, train, _counts(train, journal), ended=journal.ended)
        log_model(run_id, train, journal)
        _log_scores(run_id, train.parent / "evaluate" / "metrics.json")
    elif journal.state != "RUNNING":
        end_training(run_id, journal.state, journal.reason, ended=journal.ended)
    return run_id


def log_progress(run_id: str, train: Path, work: Path) -> None:
    """Log what a training has written so far."""
    log_history(run_id, work / "history.csv")
    log_usage(run_id, read_samples(usage_file(train)))


def _trainings(results: Path) -> Iterator[Path]:
    for folder in sorted(results.rglob("train")):
        if folder.is_dir() and (read_journal(folder) or (folder / "train.json").exists()):
            yield folder


def _journal(train: Path, experiment: str | None, unnamed: str) -> Journal:
    """The settled journal of the training, or an equivalent one from its results."""
    journal = read_journal(train)
    if journal is None or _is_of_other_results(journal, train):
        journal = _from_results(train, unnamed)
    journal = settled(train, journal)
    if experiment:
        journal = journal.model_copy(update={"track": f"{experiment}/{journal.track.partition('/')[2]}"})
    return journal


def _is_of_other_results(journal: Journal, train: Path) -> bool:
    """Whether the journal is of other results, as after a checkout of earlier ones, which keeps it."""
    facts = read_record(Training, train / "train.json") if journal.state == "FINISHED" else None
    return facts is not None and facts.config_hash != journal.facts["config_hash"]


def _from_results(train: Path, unnamed: str) -> Journal:
    facts, record = read_record(Training, train / "train.json"), read_provenance(train / SUFFIX)
    if facts is None or record is None:
        raise DataError(train, "has no record of its training", "run `tiltbox train` again")
    metrics = read_record(Metrics, train.parent / "evaluate" / "metrics.json")
    experiment = metrics.dataset if metrics and metrics.dataset else unnamed
    started = datetime.fromisoformat(record.started)
    variant, schedule = _settings(train / SUFFIX, record)
    return Journal(
        training="",
        track=f"{experiment}/{run_name(facts.variant, facts.seed)}",
        variant=variant,
        schedule=schedule,
        facts=facts.model_dump(mode="json"),
        command=record.command,
        started=started,
        ended=started + timedelta(seconds=record.seconds),
        state="FINISHED",
    )


def _settings(path: Path, record: Provenance) -> tuple[Variant, Schedule]:
    """With which the training was done."""
    try:
        return (
            read_variant(record.settings["variant"]),
            Schedule.model_validate(record.settings["schedule"]),
        )
    except (KeyError, ValidationError):
        problem = "contains settings that this version of tiltbox does not know"
        raise DataError(
            path, problem, "run `tiltbox train` again, or track it with the version that made it"
        ) from None


def _work(train: Path, config_hash: str) -> Path:
    """Where its history is: with the results, in the work folder, or where that was set aside."""
    aside = train / f"work.{config_hash}"
    return next((folder for folder in (train / "work", aside) if folder.exists()), train)


def _counts(train: Path, journal: Journal) -> dict[str, int]:
    """Parameters and multiply-adds, as counted before, or counted now."""
    name = variant_and_seed(journal.track.partition("/")[2])[0]
    for folder in (train.parent, train.parent.parent):
        counted = read_record(Complexity, folder / "complexity" / "complexity.json")
        if counted is not None and counted.variant == name:
            return {"params": counted.params, "flops": counted.flops}
    from tiltbox.model import build_detector
    from tiltbox.model.complexity import count_complexity

    found = count_complexity(build_detector(journal.variant, num_classes=journal.facts["data"]["classes"]))
    return {"params": found.params, "flops": found.flops}


def _log_scores(run_id: str, path: Path) -> None:
    metrics = read_record(Metrics, path)
    if metrics is not None:
        files = [path, beside(path), *(path.with_name(name) for name in _SHOWN)]
        pictures = sorted((path.parent / "pictures").glob("*.png"))
        shown = [file for file in (*files, *pictures) if file.is_file()]
        log_scores(client().get_run(run_id), metrics.model_dump(mode="json"), shown)
