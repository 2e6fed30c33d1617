"""The progress of a running workflow: what each job does, how far it has come, when the run will finish.

Each stage reports its own progress in the last line of its log.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypedDict

from tiltbox import layout
from tiltbox.errors import TiltboxError
from tiltbox.files.atomic import write_json
from tiltbox.records import Metrics, read_record
from tiltbox.scores import ACCURACIES

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

STATE = "status.json"  # in the folder of the dataset's logs: what `tiltbox status` reads
SECONDS = 5  # between two states
SILENT = 60  # seconds without a new state after which a run counts as killed
LEFT = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d) left")


@dataclass
class Job:
    """A job that is running."""

    stage: str
    run: str
    log: str | None
    begun: float

    @property
    def name(self) -> str:
        return f"{self.stage} {self.run}".strip()

    @property
    def doing(self) -> str:
        """The last line of its log."""
        return last_line(Path(self.log)) if self.log else ""

    @property
    def seconds_left(self) -> float | None:
        """The time left of a training; progress lines of a validation are ignored."""
        return seconds_left(last_line(Path(self.log), "epoch ")) if self.log else None


class State(TypedDict):
    """What is known about a run at a time (seconds since 1970); jobs as keywords of :class:`Job`."""

    host: str
    process: int
    time: float
    done: int
    total: int
    seconds_left: float | None
    jobs: list[dict[str, Any]]


@dataclass
class Run:
    """What is known about a Snakemake run; filled from its events."""

    done: int = 0
    total: int = 0
    trainings: int = 0  # trainings that have not ended
    jobs: dict[int, Job] = field(default_factory=dict)
    lasted: list[float] = field(default_factory=list)  # durations of trainings that have ended

    def seconds_left(self) -> float | None:
        """An estimate from the trainings, which take most of the time; None before anything is known."""
        at_work = [job for job in list(self.jobs.values()) if job.stage == "train"]
        known = {job.run: left for job in at_work if (left := job.seconds_left) is not None}
        now = time.time()
        whole = self.lasted + [now - job.begun + known[job.run] for job in at_work if job.run in known]
        if not whole or self.trainings == 0:
            return None
        usual = sum(whole) / len(whole)
        waiting = self.trainings - len(at_work)
        rest = sum(known.get(job.run, usual) for job in at_work) + waiting * usual
        return max(max(known.values(), default=0), rest / max(1, len(at_work)))

    def state(self) -> State:
        jobs = [vars(job) for job in list(self.jobs.values())]
        return {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "time": time.time(),
            "done": self.done,
            "total": self.total,
            "seconds_left": self.seconds_left(),
            "jobs": jobs,
        }


class Screen:
    """Shows a run: on a terminal with running jobs at the bottom, elsewhere with a line for each event.

    It also writes the state to the logs, for ``tiltbox status``.
    """

    def __init__(self, run: Run, stream: TextIO, *, plain: bool = False) -> None:
        self.run, self._stream = run, stream
        self._live: Live | None = None
        self._places: set[Path] = set()
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=stream, no_color=plain, highlight=False)
            self._live = Live(
                console=console, get_renderable=self._view, refresh_per_second=1, transient=True
            )

    def begin(self, stats: Mapping[str, int]) -> None:
        self.run.total, self.run.trainings = stats.get("total", 0), stats.get("train", 0)
        self.say(
            f"{self.run.total} jobs to do"
            + (f", {self.run.trainings} of them trainings" * bool(self.run.trainings))
        )
        if self._live:
            self._live.start()
        self._keeper = threading.Thread(target=self._keep_state, daemon=True)
        self._keeper.start()

    def job_begins(
        self, number: int, rule: str, wildcards: Mapping[str, str] | None, logs: Iterable[str] | None
    ) -> None:
        named = dict(wildcards or {})
        log = next(iter(logs or ()), None)
        job = Job(rule, named.get("run") or named.get("variant") or "", log and str(log), time.time())
        self.run.jobs[number] = job
        if log and len(Path(log).parts) > 2:
            self._places.add(Path(*Path(log).parts[:2]))
        if rule == "train" and not self._live:
            self.say(f"{_clock()} {job.name} begins; its progress is in {log}")
        self._leave_state()

    def job_ends(self, number: int) -> None:
        job = self.run.jobs.pop(number, None)
        if job is not None and job.stage == "train":
            self.run.trainings -= 1
            self.run.lasted.append(time.time() - job.begun)
        if job is not None and job.log is not None:  # without a log it is only a target
            lasted = timedelta(seconds=round(time.time() - job.begun))
            self.say(f"{_clock()} {job.name} done in {lasted}{_scores(job)}")

    def job_fails(self, number: int) -> None:
        job = self.run.jobs.pop(number, None)  # it may be tried again
        if job is not None:
            self.say(f"{_clock()} {job.name} failed; its log: {job.log}")

    def count(self, done: int, total: int) -> None:
        self.run.done, self.run.total = done, total
        self._leave_state()

    def say(self, text: str) -> None:
        if self._live:
            self._live.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._ended.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._live:
            self._live.stop()
        for place in self._places:
            with suppress(OSError):
                (place / STATE).unlink()

    def _view(self) -> Text:
        from rich.text import Text

        return Text("\n".join(lines(self.run.state())), no_wrap=True, overflow="ellipsis")

    def _keep_state(self) -> None:
        while not self._ended.wait(SECONDS):
            self._leave_state()

    def _leave_state(self) -> None:
        for place in self._places:
            with suppress(OSError, TiltboxError):
                write_json(place / STATE, self.run.state())


def lines(state: State) -> Iterator[str]:
    """The lines that show a run, from its state: overall progress, then a line for each running job."""
    left = state["seconds_left"]
    rest = f", about {_minutes(left)} left" if left is not None else ""
    yield f"{state['done']} of {state['total']} jobs done{rest}"
    jobs = [Job(**each) for each in state["jobs"]]
    width = max((len(job.name) for job in jobs), default=0)
    for job in jobs:
        yield f"  {job.name:{width}}  {job.doing or 'running for ' + _minutes(time.time() - job.begun)}"


def read_states() -> dict[str, State]:
    """The states of the active runs in this folder, by dataset; killed runs are left out."""
    found: dict[str, State] = {}
    for path in sorted(layout.LOGS.glob(f"*/{STATE}")):
        with suppress(OSError, ValueError):
            found[path.parent.name] = json.loads(path.read_bytes())
    return {name: state for name, state in found.items() if time.time() - state["time"] < SILENT}


def last_line(log: Path, beginning: str = "") -> str:
    """The last non-empty line of a log with this beginning, without what a progress bar overwrote."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    found = [line for line in re.split(r"[\r\n]+", text) if line.strip() and line.startswith(beginning)]
    return found[-1].strip() if found else ""


def seconds_left(line: str) -> float | None:
    """
    >>> seconds_left("epoch 1, step 50 of 414, 0:05:52 left: loss 13.480; 4.1 images a second")
    352
    >>> seconds_left("reading")
    """
    found = LEFT.search(line)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _scores(job: Job) -> str:
    """The scores of an evaluation, from the file that it wrote."""
    if job.stage != "evaluate" or job.log is None:
        return ""
    dataset = Path(job.log).parts[1]
    try:
        metrics = read_record(Metrics, layout.metrics(dataset, job.run))
    except TiltboxError:
        return ""
    if metrics is None:
        return ""
    return ": " + ", ".join(f"{each.label} {each.text(getattr(metrics, each.key))}" for each in ACCURACIES)


def _minutes(seconds: float) -> str:
    """
    >>> _minutes(40), _minutes(260), _minutes(9000)
    ('40 s', '4 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
