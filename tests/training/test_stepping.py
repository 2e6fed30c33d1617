"""A step in parts, and what happens when memory runs out."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn

from tiltbox.errors import TrainingError
from tiltbox.training.stepping import Stepper


class Toy(BaseModel):
    """A regression with a batch norm; memory is enough for ``room`` images."""

    def __init__(self, room: int = 99, error: Exception | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(3, 1), nn.BatchNorm1d(3)
        self.norm.eval()  # so that parts can be compared with the whole
        self.room, self.seen = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    def forward(self, inputs, data_samples, mode="loss"):
        self.seen.append(len(inputs))
        if len(inputs) > self.room:
            raise self.error
        found = self.layer(self.norm(torch.stack(inputs)))[:, 0]
        return {"loss_cls": (found - torch.stack(data_samples)).square().mean()}


def batch(images: int) -> dict:
    draw = torch.Generator().manual_seed(1)
    return {
        "inputs": list(torch.randn(images, 3, generator=draw)),
        "data_samples": list(torch.randn(images, generator=draw)),
    }


def stepper(model: Toy, at_once) -> Stepper:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Stepper(model, OptimWrapper(optimizer), at_once)


@pytest.mark.parametrize(("at_once", "seen"), [(1, [1] * 7), (2, [1, 2, 2, 2]), (3, [2, 2, 3]), (7, [7])])
def test_parts_give_the_gradient_of_the_whole(at_once, seen):
    whole, parts = Toy(), Toy()
    for _ in range(2):
        expected = stepper(whole, None).step(batch(7))
        found = stepper(parts, at_once).step(batch(7))
        assert {name: each.item() for name, each in found.items()} == pytest.approx(
            {name: each.item() for name, each in expected.items()}, rel=1e-6
        )
    assert parts.seen == seen * 2
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert one.detach() == pytest.approx(other.detach(), rel=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_an_error_says_how_many_images_fit(error):
    model = Toy(room=2, error=error)
    before = [each.clone() for each in model.state_dict().values()]
    message = (
        r"^training: memory ran out: the gradients of 8 images of .* at once need more than the [0-9.]+ GiB"
        r".*; set images_at_once: 2 in the schedule, which was tried and fits"
    )
    with pytest.raises(TrainingError, match=message):
        stepper(model, None).step(images_of(8))
    assert model.seen == [8, 4, 2]
    for one, other in zip(before, model.state_dict().values(), strict=True):
        assert one.equal(other)
    assert all(each.grad is None for each in model.parameters())


def images_of(count: int) -> dict:
    """As :func:`batch`, but the images have a height and a width."""
    found = batch(count)
    return found | {"inputs": [Sized(each) for each in found["inputs"]]}


class Sized(torch.Tensor):
    @property
    def shape(self):
        return torch.Size([3, 64, 64])


@pytest.mark.parametrize(("at_once", "says"), [(None, "to less than 4"), (1, "a smaller image_size")])
def test_several_processes_try_nothing(at_once, says):
    """The others wait for this one within the step: whatever it computed now would mix with theirs."""
    model = Toy(room=0)
    with_others = stepper(model, at_once)
    with_others._model = Wrapped(model)
    with pytest.raises(TrainingError, match=says):
        with_others.step(images_of(4))
    assert model.seen == [at_once or 4]  # and no fewer


class Wrapped(nn.Module):
    """As DistributedDataParallel wraps a model."""

    def __init__(self, module: Toy) -> None:
        super().__init__()
        self.module = module

    def train_step(self, *args, **options):
        return self.module.train_step(*args, **options)

    def forward(self, *args, **options):
        return self.module(*args, **options)


def test_auto_goes_on_with_what_fits():
    model, plain = Toy(room=3), Toy()
    adapting, whole = stepper(model, "auto"), stepper(plain, None)
    for _ in range(2):
        adapting.step(batch(8))
        whole.step(batch(8))
    assert model.seen == [8, 4, 2, *[2] * 4, *[2] * 4]
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert one.detach() == pytest.approx(other.detach(), rel=1e-5)


def test_not_even_one_image():
    with pytest.raises(TrainingError, match=r"gradients of 4 images .*; choose a smaller image_size"):
        stepper(Toy(room=0), "auto").step(images_of(4))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match=re.escape("shapes (2,3) differ")):
        stepper(Toy(room=0, error=RuntimeError("shapes (2,3) differ")), "auto").step(batch(4))


class Wide(Toy):
    """A toy whose every image takes 64 MiB of a GPU."""

    def forward(self, inputs, data_samples, mode="loss"):
        image = torch.stack(inputs)[:, :, None].expand(-1, -1, 2**24 // 3)
        return {"loss_cls": (image * self.layer.weight[0, :, None]).square().mean()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_full():
    """For real: the process may take 1 GiB, and eight images with their squares and gradients need more."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        with pytest.raises(TrainingError, match=r"8 images .* set images_at_once: [24] in the schedule"):
            stepper(Wide().cuda(), None).step(images_of(8))
        model = Wide().cuda()
        means = stepper(model, "auto").step(images_of(8))
        assert means["loss_cls"].isfinite() and model.layer.weight.isfinite().all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
