"""Stand-ins for what mmdet and mmrotate import and never call."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tiltbox.model.compat import _MissingOps, _Unused, import_openmmlab


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


UNUSED_IS_LEFT_OUT = """
import sys
from tiltbox.model import build_detector
from tiltbox.model.compat import UNUSED

build_detector("yoloms-xs-current")
assert not [name for name in sys.modules if name.startswith(UNUSED)]

import scipy.optimize, torch.distributed.fsdp
assert list(scipy.optimize.linear_sum_assignment([[1, 0], [0, 1]])[1]) == [1, 0]
assert torch.distributed.fsdp.FullyShardedDataParallel.__init__.__code__.co_argcount > 1
"""


def test_what_other_detectors_need_is_not_imported():
    """It can be imported later."""
    subprocess.run([sys.executable, "-c", UNUSED_IS_LEFT_OUT], check=True)


USED_IF_IMPORTED = """
import sklearn.mixture
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.models.dense_heads import paa_head

assert paa_head.skm is sklearn.mixture
"""


def test_what_was_imported_before_is_used():
    subprocess.run([sys.executable, "-c", USED_IF_IMPORTED], check=True)


def test_a_stand_in_says_so():
    with pytest.raises(NotImplementedError, match="without sklearn, so 'GaussianMixture' cannot run"):
        _Unused("sklearn").GaussianMixture(3)
