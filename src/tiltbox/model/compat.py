"""Makes mmdet and mmrotate importable where mmcv has no compiled ops or torchvision is missing.

Both packages import ``mmcv._ext`` (compiled C++) and ``torchvision`` at import time, though rotated YOLO-MS
calls neither: its rotated IoU and NMS are tiltbox's own. ``import_openmmlab`` puts stand-ins in place of what
is missing. If a compiled mmcv or a real torchvision is installed, it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.machinery import ModuleSpec
from io import StringIO
from types import ModuleType
from typing import NoReturn


@cache
def import_openmmlab() -> None:
    """Import mmdet's and mmrotate's model, data and structure registries; call before using either."""
    # Raised by their own code on every run; users cannot do anything about them.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(engine|det|rotate)|torch\.functional")
    if not _is_installed("mmcv._ext"):
        stand_in = _MissingOps("mmcv._ext")
        stand_in.__spec__ = ModuleSpec("mmcv._ext", loader=None)  # mmengine looks for it
        sys.modules["mmcv._ext"] = stand_in
    # mmdet prints a line for each optional data source that is not installed.
    with _stand_in_for_torchvision(), redirect_stdout(StringIO()):
        for name in ("mmdet.models", "mmdet.datasets", "mmrotate.models", "mmrotate.datasets"):
            importlib.import_module(name)


class _MissingOps(ModuleType):
    """Stands in for mmcv's compiled ops: every op exists, and says so when it is called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(f"mmcv was installed without compiled ops, so '{name}' cannot run")

        return missing


@contextmanager
def _stand_in_for_torchvision() -> Iterator[None]:
    """mmrotate imports ``torchvision.transforms`` for one detector (H2RBox-v2) that tiltbox does not use."""
    if _is_installed("torchvision"):
        yield
        return
    stand_in = ModuleType("torchvision")
    vars(stand_in)["transforms"] = ModuleType("torchvision.transforms")
    sys.modules["torchvision"] = stand_in
    try:
        yield
    finally:  # from here on, torchvision is missing again
        del sys.modules["torchvision"]


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
