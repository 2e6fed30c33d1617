"""The progress of a stage, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` and show the progress."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        return iter(tqdm(items, desc=label, total=total, file=sys.stderr))
    return _with_lines(items, label, total)


def _with_lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    begun = said = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            print(_line(label, count, total, now - begun), file=sys.stderr, flush=True)
            said = now
        yield item


def _line(label: str, count: int, total: int | None, seconds: float) -> str:
    """
    >>> _line("predict", 40, 120, 20), _line("fetch", 7, None, 5)
    ('predict: 40 of 120, 0:00:40 left', 'fetch: 7')
    """
    if not total or not count:
        return f"{label}: {count}"
    return f"{label}: {count} of {total}, {timedelta(seconds=round(seconds / count * (total - count)))} left"
