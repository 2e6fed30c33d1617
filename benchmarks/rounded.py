"""tiltbox on a CPU, with layers that round as a GPU's do: ``python rounded.py float16 train VARIANT …``.

What is rounded: in half precision, inputs, weights and outputs of convolutions, outputs of batch norm and of
activations, and all their gradients; in TF32, what a convolution multiplies. Sums are in single precision, as
on a GPU. The head's last layers, boxes, losses, averages and predictions are not rounded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WORKER = "tiltbox.training.worker"
SCALE = 1024.0  # of gradients in float16; a GPU finds the largest without overflow, which is rarely smaller

Rounding = Callable[[Tensor], Tensor]


def to_float16(x: Tensor) -> Tensor:
    return x.half().float()


def to_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def to_tf32(x: Tensor) -> Tensor:
    """To the nearest with 10 bits after the first."""
    return ((x.contiguous().view(torch.int32) + (1 << 12)) & -(1 << 13)).view(torch.float32)


def scaled_float16(gradient: Tensor) -> Tensor:
    return to_float16(gradient * SCALE) / SCALE


def unchanged(x: Tensor) -> Tensor:
    return x


class Precision(NamedTuple):
    """How values and their gradients are rounded on their way into layers and out of them."""

    into: tuple[Rounding, Rounding]
    out: tuple[Rounding, Rounding]


PRECISIONS = {
    "tf32": Precision((to_tf32, unchanged), (unchanged, to_tf32)),
    "float16": Precision((to_float16, scaled_float16), (to_float16, scaled_float16)),
    "bfloat16": Precision((to_bfloat16, to_bfloat16), (to_bfloat16, to_bfloat16)),
}


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Rounding, gradient: Rounding) -> Tensor:
        ctx.gradient = gradient
        return value(x) if value is not unchanged else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient(gradient), None, None


def round_layers(model: nn.Module, precision: Precision) -> None:
    """Make the layers of a detector round while it learns, all but the head's last ones."""
    head = model.bbox_head
    for part in (model.backbone, model.neck, head.cls_convs, head.reg_convs):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                layer.forward = partial(_convolved, layer, precision)
            elif precision.out[0] is not unchanged and isinstance(layer, (nn.BatchNorm2d, *ACTIVATIONS)):
                layer.register_forward_hook(partial(_rounded_output, precision))


ACTIVATIONS = (nn.SiLU, nn.LeakyReLU, nn.Sigmoid, nn.Hardsigmoid)


def _convolved(layer: nn.Conv2d, precision: Precision, x: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x)
    kept = layer._parameters["weight"]
    layer._parameters["weight"] = _Rounded.apply(kept, *precision.into)
    try:
        made = type(layer).forward(layer, _Rounded.apply(x, *precision.into))
    finally:
        layer._parameters["weight"] = kept
    return _Rounded.apply(made, *precision.out)


def _rounded_output(precision: Precision, layer: nn.Module, given: object, made: Tensor) -> Tensor | None:
    return _Rounded.apply(made, *precision.out) if layer.training else None


def main() -> None:
    name, *words = sys.argv[1:]
    if words[:2] == ["-m", WORKER]:  # of the command below
        _train(PRECISIONS[name], Path(words[2]))
    import tiltbox.stages.train as stage
    from tiltbox.__main__ import main as tiltbox

    stage.torchrun = lambda *_: [sys.executable, __file__, name]
    sys.exit(tiltbox(words))


def _train(precision: Precision, config: Path) -> None:
    from tiltbox.model.compat import import_openmmlab

    import_openmmlab()
    from tiltbox.training import worker
    from tiltbox.training.runner import PreparingRunner

    build = PreparingRunner.build_model

    def build_rounding(self: PreparingRunner, model: Any) -> nn.Module:
        built = build(self, model)
        round_layers(built, precision)
        return built

    PreparingRunner.build_model = build_rounding
    sys.exit(worker.main(config))


if __name__ == "__main__":
    main()
