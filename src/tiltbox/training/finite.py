"""Ends a training that has diverged, at once and with a word, rather than hours later with empty weights."""

from __future__ import annotations

import math

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tiltbox.errors import TrainingError

REMEDY = "lower base_lr (and muon_lr, if there is one) or raise warmup_steps in the schedule"


@HOOKS.register_module()
class FiniteHook(Hook):
    """Looks at each loss, and at all weights before they are saved: averaged ones, too, may have gone wrong.

    What was saved before stays, so the last epoch that ended well is kept.
    """

    priority = "ABOVE_NORMAL"  # before the loss gets into a history

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        loss = outputs["loss"].item()
        if not math.isfinite(loss):
            raise TrainingError(self._where(runner), f"the loss is {loss}, so the training diverged", REMEDY)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        for state in ("state_dict", "ema_state_dict"):
            for name, value in checkpoint.get(state, {}).items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    problem = f"{name} holds numbers that are not finite, so the training diverged"
                    raise TrainingError(self._where(runner), problem, REMEDY)

    @staticmethod
    def _where(runner) -> str:
        return (
            f"step {min(runner.iter + 1, runner.max_iters)} of {runner.max_iters}, epoch {runner.epoch + 1}"
        )
