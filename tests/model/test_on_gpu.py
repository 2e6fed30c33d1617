"""Layers in the form for GPUs against the plain ones: what they compute, their keys, which are replaced."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn

from tiltbox.model import build_detector, on_gpu
from tiltbox.model.on_gpu import QuickBatchNorm, QuickDepthwiseConv, quicken_on_gpu

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def triton(monkeypatch):
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: find_spec("torch"))


@pytest.mark.parametrize("variant", ["yoloms-xs-current", "yoloms-l-current", "rtmdet-r-tiny", "yolov8-n-ms"])
def test_all_batch_norms_and_depthwise_convolutions_are_replaced_and_keys_stay(variant, triton):
    model = build_detector(variant)
    before = model.state_dict().keys()
    assert quicken_on_gpu(model)
    assert model.state_dict().keys() == before
    layers = list(model.modules())
    assert not any(type(layer) is nn.BatchNorm2d for layer in layers)
    deep = [each for each in layers if isinstance(each, nn.Conv2d) and each.groups == each.in_channels > 1]
    assert deep and all(type(layer) is QuickDepthwiseConv for layer in deep)


@pytest.mark.parametrize("training", [True, False])
def test_on_a_cpu_they_compute_the_same(training, triton):
    torch.manual_seed(0)
    plain = build_detector("yoloms-xs-current").train(training)
    quick = copy.deepcopy(plain)
    quicken_on_gpu(quick)
    images = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(quick(images, mode="tensor"), plain(images, mode="tensor"), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm_cfg": {"type": "BN", "momentum": None}},
        {"norm_cfg": {"type": "BN", "affine": False}},
        {"norm_cfg": {"type": "GN", "num_groups": 2}},
        {"act_cfg": {"type": "GELU"}},
        {"order": ("norm", "conv", "act")},
    ],
)
def test_others_are_left_alone(settings, triton):
    module = ConvModule(4, 4, 3, padding=1, **{"norm_cfg": {"type": "BN"}, **settings})
    quicken_on_gpu(module)
    assert not isinstance(module.norm, QuickBatchNorm)


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2}, {"dilation": 2, "padding": 2}, {"padding": 0}, {"groups": 2}, {"bias": True}],
)
def test_other_convolutions_are_left_alone(settings, triton):
    plain = {"groups": 4, "padding": 1, "bias": False}
    assert quicken_on_gpu(model := nn.Sequential(nn.Conv2d(4, 4, 3, **{**plain, **settings})))
    assert type(model[0]) is nn.Conv2d


def test_without_triton_nothing_changes(monkeypatch, caplog):
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: None)
    model = build_detector("yoloms-xs-previous")
    assert not quicken_on_gpu(model)
    assert not any(isinstance(module, QuickBatchNorm) for module in model.modules())
    assert "Triton is not installed: training with PyTorch's own layers, which are slower" in caplog.text


def test_without_a_compiler_nothing_changes(triton, monkeypatch, caplog):
    def fail():
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(on_gpu, "_compile_one", fail)
    model = build_detector("yoloms-xs-previous")
    assert not quicken_on_gpu(model)
    assert not any(isinstance(module, QuickBatchNorm) for module in model.modules())
    assert "needs a C compiler and Python's headers (Failed to find C compiler): training with" in caplog.text


@GPU
def test_a_training_step_gives_the_same_on_a_gpu():
    """Single precision throughout, so that only rounding differs."""
    torch.manual_seed(0)
    plain = build_detector("yoloms-xs-current").cuda().train()
    quick = copy.deepcopy(plain)
    assert quicken_on_gpu(quick)
    images = torch.randn(2, 3, 128, 128, device="cuda")
    found = []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for model in (quick, plain):
            outputs = [each for level in model(images, mode="tensor") for each in level]
            torch.autograd.backward(outputs, [torch.ones_like(each) for each in outputs])
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            buffers = [each.float() for each in model.buffers()]
            found.append([*outputs, *gradients, *buffers])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).norm() <= 2e-2 * theirs.norm() + 1e-4
