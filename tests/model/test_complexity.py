"""Counts against the published table and against mmengine's own counter on real forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.model import build_detector
from tiltbox.model.complexity import count_complexity

PUBLISHED = {  # parameters in millions, multiply-adds in billions at 1 x 3 x 1024 x 1024
    "yoloms-xs-previous": (4.48, 22.24),
    "yoloms-s-previous": (8.03, 39.68),
    "yoloms-l-previous": (21.96, 102.34),
    "yoloms-xs-current": (5.09, 22.02),
    "yoloms-s-current": (8.72, 38.07),
    "yoloms-l-current": (23.12, 98.47),
}
RTMDET = {
    "rtmdet-r-tiny": (4.88, 20.45),
    "rtmdet-r-s": (8.86, 37.62),
    "rtmdet-r-m": (24.67, 99.76),
    "rtmdet-r-l": (52.27, 204.21),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    found = count_complexity(build_detector(name))
    params, flops = PUBLISHED[name]
    assert round(found.params / 1e6, 2) == params
    assert found.flops / 1e9 == pytest.approx(flops, rel=5e-4)


@pytest.mark.parametrize("name", RTMDET)
def test_published_figures_of_rtmdet_leave_batch_norms_out(name):
    """Its public configs have synchronised ones, which the counter behind the published figures ignores."""
    found = count_complexity(build_detector(name))
    others = found.flops - found.by_operation["native_batch_norm"]
    assert (round(found.params / 1e6, 2), round(others / 1e9, 2)) == RTMDET[name]


class BackboneAndNeck(nn.Module):
    """The part of a detector that MS-Blocks change."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.backbone, self.neck = detector.backbone, detector.neck

    def forward(self, x, mode):
        return self.neck(self.backbone(x))


def test_ms_blocks_save_parameters_but_not_multiply_adds():
    """As docs/detectors.md says, against the claim of "fewer parameters and MACs"."""
    plain, ms = (
        count_complexity(BackboneAndNeck(build_detector(name))) for name in ("yolov8-n", "yolov8-n-ms")
    )
    assert (plain.params, ms.params) == (2_259_536, 2_110_208)
    assert (round(plain.flops / 1e9, 3), round(ms.flops / 1e9, 3)) == (6.618, 7.227)


@pytest.mark.parametrize("name", ["yoloms-xs-previous", "rtmdet-r-tiny", "yolov8-n", "yolov8-n-ms"])
def test_mmengine_counts_the_same(name):
    from mmengine.analysis import FlopAnalyzer

    model = build_detector(name).eval()
    analyzer = FlopAnalyzer(model, torch.zeros(1, 3, 64, 64)).unsupported_ops_warnings(False)
    expected = analyzer.total()
    assert count_complexity(model, 64, 64).flops == expected


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.Upsample(scale_factor=2)
        self.linear = nn.Linear(8, 5)

    def forward(self, x, mode):
        x = self.up(self.norm(self.conv(x)).relu())
        return self.linear(x.mean((2, 3)))


def test_a_count_by_hand():
    found = count_complexity(Tiny(), height=4, width=6)
    convolution, norm, up, linear = 4 * 6 * 8 * 27, 2 * 8 * 24, 8 * 4 * 24, 8 * 5
    assert found.flops == convolution + norm + up + linear
    assert found.params == 8 * 27 + 8 + 16 + 45
    assert "relu" in found.uncounted and "convolution" not in found.uncounted
