"""Python's search for garbage in cycles of objects, which takes a good part of the time of large imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rarely_searched() -> Iterator[None]:
    """Look through old objects, such as all that was imported, a hundred times less often than by default.

    New objects are looked through as often as before.
    """
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], 100 * before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)
