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
    """Make SIGTERM end the command as an error does, so that half-written output is removed."""
    handler, hook = signal.signal(signal.SIGTERM, _end), sys.unraisablehook
    sys.unraisablehook = _end_after_all
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may arrive again during the cleanup
    sys.exit(128 + signal.SIGTERM)


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
