"""The ``tiltbox`` command: catches every error, prints one line, and sets the exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from tiltbox.errors import TiltboxError


def main(arguments: Sequence[str] | None = None) -> int:
    from tiltbox.cli import parser

    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except KeyboardInterrupt:
        return _failed(options.stage, "interrupted", 130)
    except Exception as error:
        if options.debug:
            raise
        return _failed(options.stage, _line(error), 1)
    return 0


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
