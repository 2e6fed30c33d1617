"""Layers of a detector in the form that its device trains fastest; what they compute stays the same."""

from __future__ import annotations

import torch
from torch import nn

from tiltbox.model.depthwise import quicken
from tiltbox.model.variant import PARTS


def prepare(model: nn.Module, *, cuda: bool, compiled: bool = False) -> None:
    """Prepare a detector for training; before it is wrapped for several processes.

    Args:
        compiled: Whether PyTorch compiles the layers, on GPUs alone. It takes a minute or two at the first
            step, and again for each new size of image or batch.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not cuda:
        quicken(model)
    elif compiled:
        for part in PARTS:
            model.get_submodule(part).compile(dynamic=False)
