"""Parameters and multiply-adds of a detector, counted without doing the arithmetic.

The model runs on meta tensors, which have shapes but no values, while a dispatch mode sees every
operation. The rules are those behind the published tables (those of fvcore, which mmengine includes):
multiply-adds of convolutions and matrix products, two operations per value for batch norm with affine
parameters, one per value for pooling and upsampling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
Args = tuple[Any, ...]  # of an operation: tensors, numbers, lists of numbers


@dataclass(frozen=True)
class ComplexityCount:
    """The result of :func:`count_complexity`.

    Attributes:
        params: Trainable and frozen parameters, without buffers; shared ones count once.
        flops: Multiply-adds of one forward pass, batch 1.
        by_operation: The same by operation.
        uncounted: Operations without a rule (activations, sums, copies), with their numbers of calls.
    """

    params: int
    flops: int
    by_operation: dict[str, int]
    uncounted: dict[str, int]


def count_complexity(model: nn.Module, height: int = 1024, width: int = 1024) -> ComplexityCount:
    """Count for an input of (1, 3, height, width); ``model`` moves to the meta device for good."""
    model = model.eval().to("meta")
    counter = _Counter()
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, height, width, device="meta"), mode="tensor")
    params = sum(parameter.numel() for parameter in model.parameters())
    return ComplexityCount(params, counter.flops.total(), dict(counter.flops), dict(counter.uncounted))


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.flops: Counter[str] = Counter()
        self.uncounted: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: OpOverload[..., Any],
        types: Sequence[type],
        args: Args = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        operation = func.overloadpacket
        shape: Callable[..., Any] = _SHAPES.get(operation, func)
        result = shape(*args, **(kwargs or {}))
        rule = _RULES.get(operation)
        if rule is None:
            self.uncounted[operation.__name__] += 1
        else:
            self.flops[operation.__name__] += rule(args, result)
        return result


def _convolution(args: Args, result: Tensor) -> int:
    weight: Tensor = args[1]
    return result.shape[0] * prod(result.shape[2:]) * weight.numel()


def _batch_norm(args: Args, result: object) -> int:
    values: Tensor = args[0]
    affine = args[1] is not None
    return values.numel() * (2 if affine else 1)


def _matrix_product(args: Args, result: Tensor) -> int:
    left: Tensor = args[0]
    return result.numel() * left.shape[-1]


def _mean(args: Args, result: object) -> int:
    """PyTorch pools a whole map by a mean over its two sides; any other mean has no rule in fvcore."""
    return args[0].numel() if len(args) > 1 and sorted(args[1]) == [-2, -1] else 0


def _like_input(values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(values), values.new_empty(0), values.new_empty(0)


# PyTorch would find the shape of a batch norm by decomposing it in Python, which takes most of the time.
_SHAPES: dict[object, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    aten.native_batch_norm: _like_input,
    aten._native_batch_norm_legit_no_training: _like_input,
}

_RULES: dict[object, Callable[[Args, Any], int]] = {
    aten.convolution: _convolution,
    aten.native_batch_norm: _batch_norm,
    aten._native_batch_norm_legit_no_training: _batch_norm,
    aten.addmm: lambda args, result: _matrix_product(args[1:], result),
    aten.mm: _matrix_product,
    aten.bmm: _matrix_product,
    aten._adaptive_avg_pool2d: lambda args, result: args[0].numel(),
    aten.mean: _mean,
    aten.upsample_nearest2d: lambda args, result: result.numel(),
}
