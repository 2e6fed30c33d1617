"""Layers recorded as CUDA graphs, so that a step starts two graphs instead of some four thousand kernels.

Starting kernels takes the CPU longer than most of them take a GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tiltbox.errors import TrainingError

Levels = tuple[tuple[Tensor, ...], ...]
ALIKE = 3  # batches of one size in a row before they are recorded: the last one of an epoch is often smaller


class CapturedLayers:
    """Computes what ``layers`` does, and its gradients: at first as usual, then by graphs.

    A graph has fixed addresses: its outputs and gradients hold until the next step.

    Args:
        layers: From images (b, 3, h, w) to tuples of maps.
        model: Whose weights they use.
    """

    def __init__(self, layers: Callable[[Tensor], Levels], model: nn.Module) -> None:
        self._layers, self._model = layers, model
        self._recording: _Recording | None = None
        self._last: tuple[Any, ...] = ()
        self._alike = 0

    def __call__(self, images: Tensor) -> Levels:
        weights = [each for each in self._model.parameters() if each.requires_grad]
        precision = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
        key = images.shape, images.dtype, precision, *(each.data_ptr() for each in weights)
        self._alike = self._alike + 1 if key == self._last else 1
        self._last = key
        if self._recording is None or self._recording.key != key:
            if self._alike <= ALIKE:
                if self._recording is not None and _needs_room_of(self._recording, images):
                    self._forget()
                return self._layers(images)
            self._forget()
            self._recording = self._record(images, weights, key)
        return self._recording.run(images, weights)

    def _forget(self) -> None:
        self._recording = None
        gc.collect()
        torch.cuda.empty_cache()

    def _record(self, images: Tensor, weights: Sequence[Tensor], key: tuple[Any, ...]) -> _Recording:
        try:
            return _Recording(self._layers, self._model, images, weights, key)
        except RuntimeError as error:  # after which the GPU's state is undefined
            problem = f"a step cannot be recorded as CUDA graphs: {str(error).splitlines()[0]}"
            remedy = "set cuda_graphs: false in the schedule, or images_at_once if memory ran out"
            raise TrainingError("training", problem, remedy) from error


def _needs_room_of(recording: _Recording, images: Tensor) -> bool:
    """A recording's memory is its own, and a step of another size may need as much, a larger one more."""
    recorded: torch.Size = recording.key[0]
    return images.shape.numel() > recorded.numel() or _free_memory(images) < recording.memory


def _free_memory(images: Tensor) -> int:
    """Bytes of the GPU that neither this process nor another one holds."""
    free, _ = torch.cuda.mem_get_info(images.device)
    return free


class _Recording:
    """Both passes for images of one size."""

    def __init__(
        self,
        layers: Callable[[Tensor], Levels],
        model: nn.Module,
        images: Tensor,
        weights: Sequence[Tensor],
        key: tuple[Any, ...],
    ) -> None:
        self.key = key
        before = torch.cuda.memory_reserved()
        self._images = images.clone()
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        buffers = [each.clone() for each in model.buffers()]
        with _casts_not_kept():
            self._warm_up(layers, weights)
            # Other threads may go on: the one that pins batches asks the GPU for memory.
            with torch.cuda.graph(self._forward, capture_error_mode="thread_local"):
                levels = layers(self._images)
            self._shape = [len(level) for level in levels]
            self._outputs = [each for level in levels for each in level]
            self._slopes = [torch.empty_like(each) for each in self._outputs]
            pool = self._forward.pool()
            with torch.cuda.graph(self._backward, pool=pool, capture_error_mode="thread_local"):
                self._gradients = torch.autograd.grad(self._outputs, weights, self._slopes, allow_unused=True)
        self._outputs = [each.detach() for each in self._outputs]
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)  # the warm-up moved them
        self.memory = torch.cuda.memory_reserved() - before  # bytes

    def _warm_up(self, layers: Callable[[Tensor], Levels], weights: Sequence[Tensor]) -> None:
        """Let libraries choose their kernels and take their memory, which is forbidden while recording."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                outputs = [each for level in layers(self._images) for each in level]
                slopes = [torch.zeros_like(each) for each in outputs]
                torch.autograd.grad(outputs, weights, slopes, allow_unused=True)
        torch.cuda.current_stream().wait_stream(stream)

    def run(self, images: Tensor, weights: Sequence[Tensor]) -> Levels:
        self._images.copy_(images)
        outputs = iter(_Replay.apply(self, *weights))  # type: ignore[no-untyped-call]
        return tuple(tuple(next(outputs) for _ in range(count)) for count in self._shape)

    def forward(self) -> tuple[Tensor, ...]:
        self._forward.replay()
        return tuple(each.detach() for each in self._outputs)

    def backward(self, slopes: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        for place, slope in zip(self._slopes, slopes, strict=True):
            place.copy_(slope)
        self._backward.replay()
        return tuple(None if each is None else each.detach() for each in self._gradients)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.recording = recording
        return recording.forward()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.recording.backward(slopes)


def _casts_not_kept() -> torch.autocast:
    """Weights in half precision are made from the present ones each time, not kept from the warm-up."""
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
