"""Layers as CUDA graphs: when they are recorded, and that they compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tiltbox.errors import TrainingError
from tiltbox.training import captured
from tiltbox.training.captured import ALIKE, CapturedLayers

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def levels(model: nn.Module):
    return lambda images: ((model(images),), (model(images) * 2, model(images).mean((2, 3))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 2, 1))


@pytest.fixture
def recorded(monkeypatch):
    """The sizes for which a recording is made; without a GPU."""
    sizes = []

    class Recording:
        def __init__(self, layers, model, images, weights, key):
            self.key, self.layers, self.memory = key, layers, 0
            sizes.append(len(images))

        def run(self, images, weights):
            return self.layers(images)

    monkeypatch.setattr(captured, "_Recording", Recording)
    monkeypatch.setattr(captured, "_free_memory", lambda images: 1)
    return sizes


def test_a_recording_makes_room_for_a_step_of_another_size(model, recorded, monkeypatch):
    layers = CapturedLayers(levels(model), model)
    for free in (1, 0):
        monkeypatch.setattr(captured, "_free_memory", lambda images, free=free: free)
        for size in [4] * (ALIKE + 1) + [1]:
            layers(torch.zeros(size, 3, 8, 8))
            if layers._recording is not None:
                layers._recording.memory = 1
        assert (layers._recording is None) == (free == 0)


def test_a_recording_makes_room_for_larger_images(model, recorded, monkeypatch):
    """Which need more memory than it has, however much is free; ``early_scale`` makes images grow."""
    monkeypatch.setattr(captured, "_free_memory", lambda images: 2**40)
    layers = CapturedLayers(levels(model), model)
    for size in [8] * (ALIKE + 1) + [12]:
        layers(torch.zeros(4, 3, size, size))
    assert recorded == [4] and layers._recording is None


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([4] * ALIKE, []),
        ([4] * (ALIKE + 3), [4]),
        ([4, 4, 1] * 9, []),  # two whole batches an epoch and a smaller one
        ([*[4] * 9, 1] * 9, [4]),
        ([4] * 9 + [2] * 9 + [4] * 3, [4, 2]),
    ],
)
def test_recorded_are_sizes_that_come_several_times_in_a_row(sizes, expected, model, recorded):
    layers = CapturedLayers(levels(model), model)
    for size in sizes:
        layers(torch.zeros(size, 3, 8, 8))
    assert recorded == expected


def test_recorded_again_if_weights_moved(model, recorded):
    """Graphs read from fixed addresses."""
    layers = CapturedLayers(levels(model), model)
    for _ in range(2):
        for _ in range(ALIKE + 2):
            layers(torch.zeros(2, 3, 8, 8))
        model[0].weight.data = model[0].weight.data.clone()
    assert recorded == [2, 2]


def test_what_cannot_be_recorded(model, monkeypatch):
    def fail(*_):
        raise torch.AcceleratorError("CUDA error: operation not permitted\nCompile with ...")

    monkeypatch.setattr(captured, "_Recording", fail)
    layers = CapturedLayers(levels(model), model)
    message = r"CUDA graphs: CUDA error: operation not permitted; set cuda_graphs: false in the schedule"
    with pytest.raises(TrainingError, match=message):
        for _ in range(ALIKE + 1):
            layers(torch.zeros(2, 3, 8, 8))


@GPU
@pytest.mark.parametrize("precision", [None, torch.float16, torch.bfloat16])
def test_outputs_gradients_and_running_averages_are_the_same(precision):
    """With new images and weights at each step, and a smaller batch in between."""
    found = []
    for capture in (True, False):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 2, 1)).cuda()
        layers = CapturedLayers(levels(model), model) if capture else levels(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(2 * ALIKE + 4):
            images = torch.randn(1 if step == ALIKE + 3 else 4, 3, 16, 16, device="cuda")
            with torch.autocast("cuda", precision or torch.float16, enabled=precision is not None):
                outputs = layers(images)
            loss = sum(each.float().square().mean() for level in outputs for each in level)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert not capture or layers._recording is not None
        found.append([loss.detach(), *model.parameters(), *model.buffers()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
