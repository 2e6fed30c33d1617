"""Starting a training from given weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from tiltbox.model.checkpoint import start_from

if TYPE_CHECKING:
    from mmengine.runner import Runner

log = logging.getLogger("tiltbox")


class StartFromHook(Hook):
    """Loads weights when training begins, after the runner has initialised the model.

    Args:
        source: File or address.
        parts: Parts of the detector that it must fill.
    """

    priority = "VERY_HIGH"

    def __init__(self, source: str, parts: Sequence[str]) -> None:
        self.source, self.parts = source, parts

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        report = start_from(model, self.source, self.parts)
        if runner.rank == 0:
            log.info("starting from %s: %s", self.source, report)
