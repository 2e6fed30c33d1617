"""The ``tiltbox`` command: catches every error, prints one line, and sets the exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper

from tiltbox.errors import TiltboxError
from tiltbox.processes import TOLD

_TOLD = [number for number in TOLD if number != signal.SIGINT]


def main(arguments: Sequence[str] | None = None) -> int:
    from tiltbox.cli import parser

    for stream in (sys.stdout, sys.stderr):  # tables have dashes and names may have anything
        if isinstance(stream, TextIOWrapper):  # it is None where the shell closed it
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _ended_in_order():
            options.run(options)
    except KeyboardInterrupt:
        return _failed(options.stage, "interrupted", 130)
    except BrokenPipeError:  # the reader has gone, such as head; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if options.debug:
            raise
        return _failed(options.stage, _line(error), 1)
    return 0


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Make signals end the command as an error does, so that half-written output is removed.

    Ctrl-C does so by itself; what this process was started to ignore (by ``nohup``, say), it ignores.
    """
    before, hook = {number: signal.getsignal(number) for number in _TOLD}, sys.unraisablehook
    for number in _TOLD:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _end)
    sys.unraisablehook = _end_after_all
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _end(number: int, *_: object) -> None:
    for each in _TOLD:
        signal.signal(each, signal.SIG_IGN)  # it may arrive again during the cleanup
    sys.exit(128 + number)


def _end_after_all(lost: sys.UnraisableHookArgs) -> None:
    """Python drops exceptions raised in a destructor or around a fork: end as soon as it has left there."""
    if isinstance(lost.exc_value, SystemExit):
        signal.signal(signal.SIGTERM, _end)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def _failed(stage: str, message: str, code: int) -> int:
    print(f"tiltbox {stage}: {message}", file=sys.stderr)
    return code


def _line(error: Exception) -> str:
    if isinstance(error, TiltboxError):
        return str(error)
    problem = " ".join(str(error).split())
    return f"{type(error).__name__}: {problem}; this error was not expected; --debug shows where it happened"


if __name__ == "__main__":
    sys.exit(main())
