"""Child processes that end when this one does, however it ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from tiltbox.errors import SettingsError
from tiltbox.progress import progress

T = TypeVar("T")
R = TypeVar("R")

# Told to end: by a scheduler, from the keyboard, by a terminal that was closed, by SLURM as a warning.
TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork
_unwanted: Any = None  # in a worker: a shared number, not 0 once nobody waits for results


class Unwanted(Exception):
    """Ends work in a worker process whose result nobody waits for."""


def cores() -> int:
    """The cores that this process may use; on a cluster these are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(parent: int, by: int = signal.SIGTERM) -> None:
    """Make the kernel send this process ``by`` when its parent, the process ``parent``, ends (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # the parent was killed before the kernel knew
            os.kill(os.getpid(), by)


def run_program(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a program to its end and return its exit code.

    It gets SIGTERM if this process ends first, so that it can end what it has started itself. SIGUSR1, which
    SLURM may send to all processes, does not end it unless it wants so: this process passes it on as SIGTERM.

    Args:
        environment: Variables on top of those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, env=variables, preexec_fn=partial(_begin_program, os.getpid())) as program:
        try:
            return program.wait()
        except BaseException:
            program.terminate()  # subprocess.run would kill it
            program.wait()
            raise


def _begin_program(parent: int) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def map_in_processes(
    work: Callable[[T], R],
    tasks: Sequence[T],
    workers: int,
    label: str,
    prepare: Callable[[], object] | None = None,
    less_memory: str = "use fewer --workers",
) -> list[R]:
    """``work`` of every task, in order, in this many processes; with one worker, in this process.

    After an error, and when this process is interrupted or told to end, the workers stop after the task in
    hand, or where it calls :func:`stop_if_unwanted`.

    Args:
        work: A function that can be pickled.
        label: Label of the progress bar.
        prepare: A function that every worker process calls first.
        less_memory: What to do if memory runs out.

    Raises:
        SettingsError: The processes could not start, or one was killed.
    """
    if workers == 1:
        return list(progress(map(work, tasks), label, len(tasks)))
    # A fork would copy the locks of OpenCV's and numpy's threads.
    spawn = multiprocessing.get_context("spawn")
    started, unwanted = spawn.RawValue("b", 0), spawn.RawValue("b", 0)  # no lock for a killed worker to hold
    begin = (os.getpid(), started, unwanted, prepare)
    try:
        with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=begin) as pool:
            try:
                return list(progress(pool.map(partial(_work, work), tasks), label, len(tasks)))
            except BaseException:
                unwanted.value = 1
                raise
    except BrokenProcessPool:
        raise _broken(less_memory if started.value else None) from None


def stop_if_unwanted() -> None:
    """Raise Unwanted in a worker of :func:`map_in_processes` that nobody waits for."""
    if _unwanted is not None and _unwanted.value:
        raise Unwanted


def _begin(parent: int, started: Any, unwanted: Any, prepare: Callable[[], object] | None) -> None:
    global _unwanted
    end_with_parent(parent, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops the workers
    started.value, _unwanted = 1, unwanted
    if prepare:
        prepare()


def _work(work: Callable[[T], R], task: T) -> R:
    stop_if_unwanted()
    return work(task)


def _broken(less_memory: str | None) -> SettingsError:
    """The error for workers of which one was killed; for ``None``, before any had started."""
    if less_memory:
        return SettingsError("workers", "a process was killed, probably because memory ran out", less_memory)
    remedy = 'see the messages above; a script must call this under `if __name__ == "__main__":`'
    return SettingsError("workers", "their processes could not start", f"{remedy}, or with workers=1")
