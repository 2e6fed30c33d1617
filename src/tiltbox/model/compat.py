"""Makes mmdet and mmrotate importable where mmcv has no compiled ops or torchvision is missing, and quickly.

Both packages import ``mmcv._ext`` (compiled C++) and ``torchvision`` at import time, though rotated YOLO-MS
calls neither: its rotated IoU and NMS are tiltbox's own. ``import_openmmlab`` puts stand-ins in place of what
is missing. If a compiled mmcv or a real torchvision is installed, it is used.

They also import what other detectors need, which takes longer than all the rest. Stand-ins take its place
while they are imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from io import StringIO
from types import ModuleType
from typing import NoReturn

from tiltbox.garbage import rarely_searched

# Of mmrotate, only H2RBox-v2 uses torchvision; mmdet and mmengine use the others for trackers, lanes, image
# corruptions, figures and training in shards.
TORCHVISION = "torchvision"
UNUSED = (
    *("imagecorruptions", "imgaug", "matplotlib.pyplot", "sklearn"),
    *("scipy.interpolate", "scipy.linalg", "scipy.optimize", "scipy.sparse"),
    *("torch.distributed.fsdp", "torch.distributed.optim"),
)


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
    unused = UNUSED if _is_installed(TORCHVISION) else (*UNUSED, TORCHVISION)
    with _stand_ins(unused), redirect_stdout(StringIO()), rarely_searched():
        for part in ("models", "datasets", "evaluation", "visualization"):
            importlib.import_module(f"mmrotate.{part}")  # imports that of mmdet


class _MissingOps(ModuleType):
    """Stands in for mmcv's compiled ops: every op exists, and says so when it is called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(f"mmcv was installed without compiled ops, so '{name}' cannot run")

        return missing


@contextmanager
def _stand_ins(names: tuple[str, ...]) -> Iterator[None]:
    """Put stand-ins in place of packages that were not imported before; afterwards, they can be imported."""
    finder = _Finder(tuple(name for name in names if name not in sys.modules))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Unused)]:
            del sys.modules[name]
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)


class _Unused(ModuleType):
    """Stands in for a module: it has every class, which fails when it is called."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(
                f"tiltbox imports mmdet without {self.__name__}, so '{name}' cannot run"
            )

        return type(name, (), {"__new__": missing})


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for packages and everything in them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.startswith(tuple(f"{each}." for each in self._names)) or name in self._names:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Unused(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
