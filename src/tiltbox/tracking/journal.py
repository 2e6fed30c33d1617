"""What MLflow needs to know about a training, kept beside it in ``.mlflow.json``, also once MLflow knows it.

It is written when a training begins and when it ends, whether MLflow answers or not. If it says that its
training runs, but no process holds the training's lock, the training was killed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from tiltbox.errors import DataError
from tiltbox.files.atomic import acquired
from tiltbox.layout import TRAINING_LOCK
from tiltbox.model.variant import Variant
from tiltbox.model.variants import AnyVariant
from tiltbox.provenance import command_line
from tiltbox.records import Record, read_record, write_record
from tiltbox.settings.schedules import Schedule

log = logging.getLogger("tiltbox")

_NAME, _USAGE = ".mlflow.json", ".mlflow-usage.jsonl"
State = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # as MLflow has them


class Journal(Record):
    """A training, for MLflow.

    Attributes:
        training: Its mark: the hash of its configuration, and when it was first started.
        track: ``experiment/run``.
        variant, schedule, facts, command: The arguments of :func:`tiltbox.tracking.begin_training`.
        started, ended: When it was last started, and when it ended, UTC.
        state, reason: The state of MLflow's run; why it ended early.
        earlier: Marks of trainings that were started in the same folder before and did not finish.
    """

    training: str
    track: str
    variant: AnyVariant
    schedule: Schedule
    facts: dict[str, Any]
    command: str | None = None
    started: datetime
    ended: datetime | None = None
    state: State = "RUNNING"
    reason: str | None = None
    earlier: tuple[str, ...] = ()


def begin_journal(
    out: Path, track: str, variant: Variant, schedule: Schedule, facts: Mapping[str, Any], *, resumes: bool
) -> Journal:
    """Begin the journal of a training in ``out``, or continue that of the training that it resumes."""
    now = datetime.now(UTC)
    left = _unfinished(_earlier(out))
    prefix = f"{facts['config_hash']}-"
    own = next((mark for mark in left if resumes and mark.startswith(prefix)), None)
    if own is None:
        usage_file(out).unlink(missing_ok=True)
    journal = Journal(
        training=own or f"{prefix}{now:%Y%m%dT%H%M%S.%f}",
        track=track,
        variant=variant,
        schedule=schedule,
        facts=dict(facts),
        command=command_line(),
        started=now,
        earlier=tuple(mark for mark in left if mark != own),
    )
    write_record(out / _NAME, journal)
    return journal


def end_journal(out: Path, state: State, reason: str | None) -> Journal | None:
    """Note how the training ended; None if it has no journal."""
    journal = read_journal(out)
    if journal is not None:
        journal = journal.model_copy(update={"state": state, "reason": reason, "ended": datetime.now(UTC)})
        write_record(out / _NAME, journal)
    return journal


def has_journal(out: Path) -> bool:
    """Whether the training in ``out`` was to be logged."""
    return (out / _NAME).exists()


def read_journal(out: Path) -> Journal | None:
    return read_record(Journal, out / _NAME)


def settled(out: Path, journal: Journal) -> Journal:
    """The journal with its true state: that of a killed training does not say that it was killed."""
    if journal.state != "RUNNING" or is_training(out):
        return journal
    reason = "was killed, perhaps because memory ran out; it resumes when started again"
    return journal.model_copy(update={"state": "KILLED", "reason": reason})


def is_training(out: Path) -> bool:
    """Whether a process trains in ``out``."""
    if not (out / TRAINING_LOCK).exists():
        return False
    lock = FileLock(out / TRAINING_LOCK, fallback_to_soft=False)
    try:
        held = acquired(lock, patience=0)
    except Timeout:
        return True
    lock.release()
    return not held  # on a drive without locks the journal is believed


def usage_file(out: Path) -> Path:
    """The file with the samples of :mod:`.usage`."""
    return out / _USAGE


def _earlier(out: Path) -> Journal | None:
    """The previous journal; one from another version may be unreadable, which must not stop a training."""
    try:
        return read_journal(out)
    except DataError as error:
        log.warning("%s; it is replaced", error)
        return None


def _unfinished(journal: Journal | None) -> tuple[str, ...]:
    """Marks of unfinished trainings, the latest first."""
    if journal is None:
        return ()
    return (*(() if journal.state == "FINISHED" else (journal.training,)), *journal.earlier)
