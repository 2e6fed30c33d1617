"""Trainings over several nodes: the tasks of a SLURM step (``srun --ntasks=2 tiltbox train``) train together.

The first task prepares the training and writes where the others find it into the output folder, which all
share. Each then starts its own part of the processes with torchrun.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tiltbox.errors import SettingsError, TiltboxError
from tiltbox.files.atomic import write_json

log = logging.getLogger("tiltbox")
PATIENCE = 600  # seconds in which the first task has to say that it prepares the training
POLL = 0.5
# A requeued job repeats its numbers, and Snakemake drops the count of restarts; but srun has another port.
STEP = ("JOB_ID", "STEP_ID", "RESTART_COUNT", "SRUN_COMM_PORT")
STATE, PREPARING, FAILED = "state", "preparing", "failed"


class Task(NamedTuple):
    """One of ``total`` tasks that train together; ``step`` is theirs alone."""

    number: int = 0
    total: int = 1
    step: str = ""

    def share(self, number: int, option: str) -> int:
        """This task's part of the GPUs or processes of all.

        Raises:
            SettingsError: They cannot be shared evenly.
        """
        if number % self.total:
            problem = f"{number} cannot be shared evenly by {self.total} tasks"
            raise SettingsError(option, problem, f"give a multiple of {self.total}")
        return number // self.total


class Meeting(NamedTuple):
    """What the first task tells the others: where it is, and what each starts.

    ``processes`` is the number of each task; they use a GPU each if ``gpus``.
    """

    host: str
    port: int
    processes: int
    gpus: bool


def task_here() -> Task:
    """This process's place among the tasks of its SLURM step; outside of SLURM it is the only one.

    Raises:
        SettingsError: SLURM's variables contradict each other.
    """
    total = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if total == "1":
        return Task()
    step = [os.environ.get(f"SLURM_{name}", "0") for name in STEP]
    number = os.environ.get("SLURM_PROCID", "")
    if not (total.isdigit() and number.isdigit() and int(number) < int(total)):
        problem = f"is {total!r}, but SLURM_PROCID is {number!r}"
        raise SettingsError("SLURM_STEP_NUM_TASKS", problem, "unset it to train with this process alone")
    return Task(int(number), int(total), ".".join(step))


@contextmanager
def leading(task: Task, out: Path) -> Iterator[Callable[[int, bool], Meeting | None]]:
    """In the first task: gives a function that tells the others to begin, and says where to meet.

    The function takes the number of processes of each task, and whether they use GPUs. If something fails,
    the others are told so.
    """
    if task.total == 1:
        yield lambda processes, gpus: None
        return
    note = _note(out, task)
    _say(note, PREPARING)
    log.info(
        "training with %d tasks of SLURM step %s; unset SLURM_STEP_NUM_TASKS to train with one alone",
        *(task.total, task.step),
    )

    def tell(processes: int, gpus: bool) -> Meeting:
        meeting = Meeting(socket.gethostname(), _free_port(), processes, gpus)
        write_json(note, meeting._asdict())
        return meeting

    try:
        yield tell
    except BaseException:
        _say(note, FAILED)
        raise
    note.unlink(missing_ok=True)


def awaited(task: Task, out: Path) -> Meeting:
    """In the other tasks: what the first one says, once it does.

    Raises:
        TiltboxError: It failed before, or says nothing for ten minutes.
    """
    until = time.monotonic() + PATIENCE
    while (said := _said(_note(out, task))).get(STATE) == PREPARING or not said:
        if not said and time.monotonic() > until:
            problem = f"task {task.number} heard nothing from task 0 for {PATIENCE // 60} minutes"
            remedy = (
                "see its messages; the folder must be on a drive that all share. To train each task alone,"
                " unset SLURM_STEP_NUM_TASKS"
            )
            raise TiltboxError(out, problem, remedy)
        time.sleep(POLL)
    if said.get(STATE) == FAILED:
        raise TiltboxError(out, "task 0 could not begin the training", "see its messages")
    return Meeting(**said)


def _say(note: Path, state: str) -> None:
    with suppress(OSError, TiltboxError):  # if nothing can be written there, the training says so itself
        write_json(note, {STATE: state})


def _said(note: Path) -> dict[str, Any]:
    """What the first task said last; nothing yet if the note is missing."""
    try:
        return json.loads(note.read_text())
    except FileNotFoundError:
        return {}


def torchrun(task: Task, meeting: Meeting | None, processes: int) -> Sequence[str]:
    """What starts this task's processes, to be followed by a module; nothing for a single process."""
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if meeting is not None:
        place = f"--nnodes={task.total}", f"--node-rank={task.number}"
        return [*run, *place, f"--master-addr={meeting.host}", f"--master-port={meeting.port}"]
    return [*run, "--standalone"] if processes > 1 else [sys.executable]


def _note(out: Path, task: Task) -> Path:
    return out / f".tiltbox-tasks-{task.step}.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
