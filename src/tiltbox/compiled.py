"""Compilation of inner loops by numba, kept on disk so that only the first run on a machine pays for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from filelock import FileLock

from tiltbox.files.atomic import acquired

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make an import of ``name`` fail, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # None makes an import fail
    try:
        yield
    finally:
        del sys.modules[name]


# numba looks for the linear algebra of SciPy, which nothing here needs and which takes 0.25 s to import.
with _hidden("scipy.linalg"):
    import numba.np.arraymath  # noqa: F401
    from numba import njit


def compiled(function: Function) -> Function:
    """``function``, compiled and kept on disk if numba finds a folder that it may write to.

    numba notices changes to the file of a function, but not to the files of functions that it calls, so
    compiled functions that call each other are in one file.
    """
    try:
        result: Any = njit(cache=True)(function)  # numba's types do not know of its cache
    except RuntimeError:  # every place for the cache is read-only
        return cast(Function, njit(function))
    # numba asks it which errors to ignore, on Windows only; load and save then do nothing.
    result._cache._guard_against_spurious_io_errors = partial(_forgiven, result._cache)
    result.compile = partial(_by_one_process, result.compile, Path(result._cache.cache_path))
    return cast(Function, result)


def _by_one_process(compile: Callable[..., Any], kept: Path, *signature: Any) -> Any:
    """Compile, or load what another process has compiled: the others wait for it, which costs nothing."""
    if kept not in _locks:
        with suppress(OSError):  # without the folder, compile without a lock
            kept.mkdir(parents=True, exist_ok=True)
        _locks[kept] = FileLock(kept / ".lock", fallback_to_soft=False)
    held = acquired(_locks[kept])
    try:
        return compile(*signature)
    finally:
        if held:
            _locks[kept].release()


_locks: dict[Path, FileLock] = {}  # reentrant, since compiled functions call each other


@contextmanager
def _forgiven(cache: Any) -> Iterator[None]:
    """Full disks and damaged files cost time but raise no error; they are not used again."""
    try:
        yield
    except Exception:
        with suppress(Exception):
            cache.flush()
