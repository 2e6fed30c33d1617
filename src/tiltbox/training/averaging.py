"""Averaged weights in one operation a step, where mmengine averages some 400 tensors one by one."""

from __future__ import annotations

import math

import torch
from mmdet.models.layers import ExpMomentumEMA
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class AveragedWeights(ExpMomentumEMA):
    """mmdet's exponential average, whose momentum falls from 1; the bits are the same.

    Like mmdet's, it also averages buffers, and leaves integers as they were at the first step.
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the weights of ``model``."""
        if self.steps == 0:
            super().update_parameters(model)
            return
        steps = int(self.steps)
        momentum = (1 - self.momentum) * math.exp(-float(1 + steps) / self.gamma) + self.momentum
        torch._foreach_lerp_(_floats(self.module), _floats(model), momentum)
        self.steps += 1


def _floats(model: nn.Module) -> list[Tensor]:
    """All weights and buffers that can be averaged, always in the same order."""
    tensors = [*model.parameters(), *model.buffers()]
    return [each.data for each in tensors if each.dtype.is_floating_point]
