"""The ``tiltbox`` command: catches what the library raises, prints one line, and sets the exit code."""

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
    except TiltboxError as error:
        if options.debug:
            raise
        print(f"tiltbox {options.stage}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"tiltbox {options.stage}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
