"""Detectors with fused batch norms compute what they computed before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.model import build_detector
from tiltbox.model.fusing import fuse


@pytest.mark.parametrize(
    "variant",
    ["yoloms-xs-previous", "yoloms-xs-current", "rtmdet-r-tiny", "yolov8-n", "yolov8-n-ms"],
)
def test_outputs_stay_the_same(variant):
    torch.manual_seed(0)
    model = build_detector(variant).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        for tensor, low, high in (
            (norm.running_mean, -0.5, 0.5),
            (norm.running_var, 0.5, 2.0),
            (norm.weight, 0.5, 1.5),
            (norm.bias, -0.5, 0.5),
        ):
            tensor.data.uniform_(low, high)
    for name, module in model.bbox_head.named_modules():
        if name.startswith("rtm_") and isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected = model(x, mode="tensor")
        found = fuse(model)(x, mode="tensor")
    left = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left) < len(norms) / 10
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-3 * other.abs().max().item())
            assert other.std() > 1e-3  # the inputs decide
