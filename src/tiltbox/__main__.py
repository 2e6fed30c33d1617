"""The ``tiltbox`` command: catches every error, prints one line, and sets the exit code."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tiltbox.errors import TiltboxError


def main(arguments: Sequence[str] | None = None) -> int:
    from tiltbox.cli import parser

    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _ended_in_order():
            options.run(options)
    except KeyboardInterrupt:
        return _failed(options.stage, "interrupted", 130)
    except Exception as error:
        if options.debug:
            raise
        return _failed(options.stage, _line(error), 1)
    return 0


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have SIGTERM end the command as an error does, so that it removes what is half written."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come again, while things are put in order
    sys.exit(128 + signal.SIGTERM)


def _failed(stage: str, message: str, code: int) -> int:
    print(f"tiltbox {stage}: {message}", file=sys.stderr)
    return code


def _line(error: Exception) -> str:
    if isinstance(error, TiltboxError):
        return str(error)
    problem = " ".join(str(error).split())
    return f"{type(error).__name__}: {problem}; this was not foreseen, --debug shows where it happened"


if __name__ == "__main__":
    sys.exit(main())
