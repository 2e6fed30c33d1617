"""Ends a diverged training at once with a message, rather than hours later with useless weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from tiltbox.errors import TrainingError

if TYPE_CHECKING:
    from mmengine.runner import Runner

REMEDY = "lower base_lr (and muon_lr, if there is one) or raise warmup_steps in the schedule"


STEPS_AT_ONCE = 20  # on a GPU, where each look at a loss makes the processor wait


@HOOKS.register_module()
class FiniteHook(Hook):
    """Checks each loss, and all weights before they are saved; averages of finite weights are finite.

    Earlier checkpoints stay, so the last good epoch is kept.
    """

    priority = "ABOVE_NORMAL"  # before the loss is added to a history

    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if outputs["loss"].is_cpu or len(self._losses) == STEPS_AT_ONCE:
            self._check(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner, runner.iter)

    def _check(self, runner: Runner, last: int) -> None:
        """Look at the losses since the last look, which were those of the steps up to ``last``."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        self._losses.clear()
        for step, loss in enumerate(losses, last - len(losses) + 1):
            if not math.isfinite(loss):
                problem = f"the loss is {loss}, so the training diverged"
                raise TrainingError(self._where(runner, step), problem, REMEDY)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                problem = f"{name} contains numbers that are not finite, so the training diverged"
                step = min(runner.iter + 1, runner.max_iters)
                raise TrainingError(self._where(runner, step), problem, REMEDY)

    @staticmethod
    def _where(runner: Runner, step: int) -> str:
        return f"step {step} of {runner.max_iters}, epoch {runner.epoch + 1}"
