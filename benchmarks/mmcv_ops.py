"""mmcv's compiled rotated IoU and NMS for the CPU, built from four of its source files in minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType

from torch.utils.cpp_extension import load

SOURCE = """
#include <torch/extension.h>
#include "pytorch/box_iou_rotated.cpp"
#include "pytorch/cpu/box_iou_rotated.cpp"
#include "pytorch/nms_rotated.cpp"
#include "pytorch/cpu/nms_rotated.cpp"
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("box_iou_rotated", &box_iou_rotated);
  m.def("nms_rotated", &nms_rotated);
}
"""


def built(mmcv: Path) -> ModuleType:
    """The module with ``box_iou_rotated`` and ``nms_rotated``; it is kept in PyTorch's folder of extensions.

    Args:
        mmcv: An unpacked source distribution.
    """
    sources = mmcv / "mmcv/ops/csrc"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rotated.cpp"
        source.write_text(SOURCE)
        includes = [str(sources), str(sources / "common")]
        return load("mmcv_rotated_ops", str(source), extra_include_paths=includes, extra_cflags=["-O3", "-w"])
