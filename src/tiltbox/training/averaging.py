"""Averaged weights in a few operations a step, where mmengine averages some 400 tensors one by one."""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from typing import Any

import torch
from mmdet.models.layers import ExpMomentumEMA
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class AveragedWeights(ExpMomentumEMA):
    """mmdet's exponential average, whose momentum falls from 1; the bits are the same.

    Like mmdet's, it also averages buffers, leaves integers as they were at the first step, and moves weights
    that several levels share once for each of them, since a state-dict has them that often.
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the weights of ``model``."""
        step = self._step
        self._step += 1
        if step == 0:
            super().update_parameters(model)
            return
        momentum = (1 - self.momentum) * math.exp(-float(1 + step) / self.gamma) + self.momentum
        averages, weights = [each.data for each in self._averages], [each.data for each in self._of(model)]
        for places in self._rounds:
            torch._foreach_lerp_([averages[at] for at in places], [weights[at] for at in places], momentum)
        self.steps += 1

    @cached_property
    def _step(self) -> int:
        """``steps`` without a look at the GPU, which would have to be waited for."""
        return int(self.steps)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.__dict__.pop("_step", None)

    @cached_property
    def _averages(self) -> list[Tensor]:
        return _tensors(self.module)

    def _of(self, model: nn.Module) -> list[Tensor]:
        """The tensors of a model, remembered: to find them takes longer than to average them."""
        known, tensors = self.__dict__.get("_known", (None, []))
        if known is not model:
            tensors = _tensors(model)
            self.__dict__["_known"] = model, tensors  # set otherwise, the model would become a part of this
        return tensors

    @cached_property
    def _rounds(self) -> list[list[int]]:
        """Places of all tensors, then of those that are there at least twice, and so on."""
        named = (self.module.named_parameters, self.module.named_buffers)
        times = Counter(id(each) for names in named for _, each in names(remove_duplicate=False))
        counts = [times[id(each)] for each in self._averages]
        return [
            [at for at, count in enumerate(counts) if count > past] for past in range(max(counts, default=0))
        ]


def _tensors(model: nn.Module) -> list[Tensor]:
    """All weights and buffers that can be averaged, each once, always in the same order."""
    return [each for each in (*model.parameters(), *model.buffers()) if each.dtype.is_floating_point]
