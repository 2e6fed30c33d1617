"""Stand-ins for what mmdet and mmrotate import and never call."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tiltbox.model.compat import _MissingOps, import_openmmlab


def test_an_operation_that_is_not_there_says_so():
    ops = _MissingOps("mmcv._ext")
    with pytest.raises(NotImplementedError, match="without compiled ops, so 'nms_rotated' cannot run"):
        ops.nms_rotated(1, 2)
    assert not hasattr(ops, "__path__")


@pytest.mark.skipif(importlib.util.find_spec("torchvision"), reason="torchvision is installed")
def test_torchvision_is_as_missing_as_before():
    import_openmmlab()
    assert "torchvision" not in sys.modules


def test_nothing_is_printed():
    """mmdet prints a line for each optional data source that is not installed."""
    code = "from tiltbox.model.compat import import_openmmlab; import_openmmlab()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
