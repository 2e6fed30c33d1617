"""Compares the cost of programs and functions fairly: contenders take turns, and medians are shown."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds of CPU time, including child processes; seconds by the clock; peak MiB of all processes."""

    cpu: float
    wall: float
    peak: float


class Contender(NamedTuple):
    """One way to do the job.

    Attributes:
        command: A program and its arguments.
        inside: Whether the program itself reports the cost of the job (:func:`say_cost_of`), without
            start-up.
        environment: Variables in addition to the present ones.
    """

    command: Sequence[object]
    inside: bool = False
    environment: Mapping[str, str] = {}


def compared(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Cost]:
    """The median cost of each, over this many rounds in which all take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            print(f"\rround {number + 1} of {rounds}: {name:<40}", end="", file=sys.stderr, flush=True)
            costs[name].append(_cost(contender))
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    return {name: Cost(*map(statistics.median, zip(*found, strict=True))) for name, found in costs.items()}


def say_cost_of(job: Callable[[], object], *, warm: bool = False) -> None:
    """Do the job, the second time if ``warm``, and print what it cost, for :func:`compared`."""
    if warm:
        job()
    cpu, wall = _cpu(), time.perf_counter()
    job()
    print(json.dumps([_cpu() - cpu, time.perf_counter() - wall]))


def table(title: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(title, *rows, strict=True)]
    lines = []
    for cells in (title, *rows):
        first, *rest = zip(cells, widths, strict=True)
        lines.append(
            f"| {first[0]:<{first[1]}} | " + " | ".join(f"{cell:>{width}}" for cell, width in rest) + " |"
        )
    lines.insert(
        1, f"|:{'-' * widths[0]}-|" + "|".join(f"{'-' * (width + 1)}:" for width in widths[1:]) + "|"
    )
    return "\n".join(lines)


def comparison(costs: Mapping[str, Cost], against: str) -> str:
    """A table of costs; ``against`` is the contender that the others are compared with."""
    base = costs[against]
    rows = [
        [name, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{cost.peak:.0f}"]
        + ([""] * 2 if name == against else [f"{base.cpu / cost.cpu:.1f}×", f"{base.wall / cost.wall:.1f}×"])
        for name, cost in costs.items()
    ]
    return table(["", "CPU s", "clock s", "peak MiB", "CPU", "clock"], rows)


def machine(*packages: str) -> str:
    """The machine and versions of the measurement, in a line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("tiltbox", *packages))
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _cost(contender: Contender) -> Cost:
    before = time.perf_counter()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaint:
        words = list(map(str, contender.command))
        environment = {**os.environ, **contender.environment}
        program = subprocess.Popen(words, env=environment, stdout=said, stderr=complaint)
        watch = Watch(program.pid)
        _, status, used = os.wait4(program.pid, 0)
        wall, peak = time.perf_counter() - before, watch.peak()
        for stream in (said, complaint):
            stream.seek(0)
        if status:
            sys.exit(f"\n{' '.join(words)}\n{complaint.read().decode()}")
        if contender.inside:
            return Cost(*json.loads(said.read().splitlines()[-1]), peak)
    return Cost(used.ru_utime + used.ru_stime, wall, peak)


class Watch(threading.Thread):
    """Records every 20 ms the peak memory of a process and its descendants (Linux).

    The figure of wait4 would be at least what this process had when it started the other.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._peaks, self._over = pid, {}, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.02):
            for pid in self._family(self._pid):
                with suppress(OSError):  # the process has ended
                    status = Path(f"/proc/{pid}/status").read_text()
                    if match := re.search(r"VmHWM:\s+(\d+) kB", status):
                        self._peaks[pid] = int(match[1]) / 1024

    def peak(self) -> float:
        """The sum of the peaks of all processes, in MiB."""
        self._over.set()
        self.join()
        return sum(self._peaks.values())

    def _family(self, pid: int) -> Iterator[int]:
        yield pid
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                for child in thread.read_text().split():
                    yield from self._family(int(child))


def _cpu() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
