"""Ends a diverged training at once with a message, rather than hours later with useless weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tiltbox.errors import TrainingError

if TYPE_CHECKING:
    from mmengine.runner import Runner

REMEDY = "lower base_lr (and muon_lr, if there is one) or raise warmup_steps in the schedule"


@HOOKS.register_module()
class FiniteHook(Hook):
    """Checks each loss, and all weights before they are saved: averaged weights may have diverged, too.

    Earlier checkpoints stay, so the last good epoch is kept.
    """

    priority = "ABOVE_NORMAL"  # before the loss is added to a history

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = outputs["loss"].item()
        if not math.isfinite(loss):
            raise TrainingError(self._where(runner), f"the loss is {loss}, so the training diverged", REMEDY)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for state in ("state_dict", "ema_state_dict"):
            for name, value in checkpoint.get(state, {}).items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    problem = f"{name} contains numbers that are not finite, so the training diverged"
                    raise TrainingError(self._where(runner), problem, REMEDY)

    @staticmethod
    def _where(runner: Runner) -> str:
        return (
            f"step {min(runner.iter + 1, runner.max_iters)} of {runner.max_iters}, epoch {runner.epoch + 1}"
        )
