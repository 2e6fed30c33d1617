"""One step of a training: all its images at once, or in parts if memory is short."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tiltbox.devices.memory import allowed_memory
from tiltbox.errors import TrainingError

if TYPE_CHECKING:
    from mmengine.model import BaseModel
    from mmengine.optim import OptimWrapper

log = logging.getLogger("tiltbox")

Batch = dict[str, list[Any]]  # images and their samples, as the data loader gives them
AtOnce = int | Literal["auto"] | None


class Stepper:
    """Updates a detector with the images of a step.

    Args:
        at_once: Images whose gradients are computed at once; those of the others are added. None for all;
            ``auto`` for all until memory runs out, and then for as many as fit.
    """

    def __init__(self, model: BaseModel, optimizer: OptimWrapper, at_once: AtOnce) -> None:
        self._model, self._optimizer = model, optimizer
        self._detector: BaseModel = getattr(model, "module", model)
        self._adapts, self._most = at_once == "auto", at_once if isinstance(at_once, int) else None

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The mean losses of the images; to be called in all processes.

        Raises:
            TrainingError: Memory ran out; with one process, it says how many images fit.
        """
        images = len(batch["inputs"])
        try:
            return self._step(batch, min(self._most or images, images))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
        # Outside of the handler, since the error holds what the step had computed.
        tried = min(self._most or images, images)
        if self._model is not self._detector:  # the others wait in this step, so nothing can be tried
            raise self._error(batch, tried, None)
        fits = next((count for count in _fewer(tried) if self._fits(batch, count)), 0)
        if not (self._adapts and fits):
            raise self._error(batch, tried, fits)
        log.warning("memory ran out: from here on, gradients are computed for %d images at once", fits)
        self._most = fits
        return self._step(batch, fits)

    def _step(self, batch: Batch, most: int) -> dict[str, Tensor]:
        images = len(batch["inputs"])
        if most >= images:
            return self._model.train_step(batch, optim_wrapper=self._optimizer)
        means: dict[str, Tensor] = {}
        for part, share in _parts(batch, most):
            loss, losses = self._losses(self._model, part)
            self._optimizer.backward(loss * share)
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() * share
        self._optimizer.step()
        self._optimizer.zero_grad()
        return means

    def _losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with self._optimizer.optim_context(model):
            data = self._detector.data_preprocessor(batch, True)
            return self._detector.parse_losses(model(**data, mode="loss"))

    def _fits(self, batch: Batch, count: int) -> bool:
        """Whether the gradients of so many images can be computed at once; nothing is updated."""
        self._forget()
        before = [buffer.clone() for buffer in self._detector.buffers()]
        try:
            part, _ = next(_parts(batch, count))
            self._losses(self._detector, part)[0].backward()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
            return False
        finally:
            for buffer, value in zip(self._detector.buffers(), before, strict=True):
                buffer.copy_(value)
            self._forget()
        return True

    def _forget(self) -> None:
        self._optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _error(self, batch: Batch, tried: int, fits: int | None) -> TrainingError:
        """
        Args:
            fits: How many images fit; None if that is not known.
        """
        height, width = batch["inputs"][0].shape[-2:]
        problem = (
            f"memory ran out: the gradients of {tried} {'image' if tried == 1 else 'images'} of {width} x"
            f" {height} px at once need more than the {_memory()}"
        )
        if fits == 0 or tried == 1:
            remedy = "choose a smaller image_size in the schedule, or a smaller variant"
        elif fits is None:
            remedy = (
                f"set images_at_once in the schedule to less than {tried}: steps and rates stay the same,"
                " batch norm looks at fewer images (with one process, auto finds the number by itself)"
            )
        else:
            remedy = (
                f"set images_at_once: {fits} in the schedule, which was tried and fits (auto finds it by"
                f" itself): steps and rates stay the same, batch norm looks at fewer images"
            )
        return TrainingError("training", problem, remedy)


def _parts(batch: Batch, most: int) -> Iterator[tuple[Batch, float]]:
    """Parts of nearly equal size, and their shares of the images."""
    images = len(batch["inputs"])
    count = -(-images // most)
    ends = [images * (number + 1) // count for number in range(count)]
    for start, end in zip([0, *ends], ends, strict=False):
        yield {key: values[start:end] for key, values in batch.items()}, (end - start) / images


def _fewer(images: int) -> Iterator[int]:
    while images > 1:
        images = (images + 1) // 2
        yield images


def _ran_out_of_memory(error: BaseException) -> bool:
    # PyTorch has no kind of its own for a CPU's memory, nor for what it does not allocate itself.
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(each in text for each in _LACK)


_LACK = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)


def _memory() -> str:
    if torch.cuda.is_available():
        _, total = torch.cuda.mem_get_info()
        return f"{total / 2**30:.0f} GiB of the GPU"
    return f"{allowed_memory() / 2**30:.1f} GiB that this process may use"
