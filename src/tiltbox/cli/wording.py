"""Counts in messages."""

from __future__ import annotations

import logging

log = logging.getLogger("tiltbox")


def counted(count: int, noun: str, plural: str = "") -> str:
    """
    >>> counted(1, "image"), counted(1200, "patch", "patches")
    ('1 image', '1,200 patches')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def warn_of(count: int, noun: str, what: str) -> None:
    """Warn if there are any."""
    if count:
        log.warning("%s %s", counted(count, noun), what)
