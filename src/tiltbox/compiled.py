"""Compilation of inner loops by numba, kept on disk so that only the first run on a machine pays for it."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """``function`` compiled, kept on disk where numba finds a folder that it may write to.

    numba notices changes of the file that a function stands in, but not of the files that it calls into, so
    compiled functions that call each other stand in one file.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # every place for the cache is read-only
        return njit(function)
