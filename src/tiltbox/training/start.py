"""Starting a training from given weights."""

from __future__ import annotations

import logging

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from tiltbox.model.checkpoint import start_from

log = logging.getLogger("tiltbox")


class StartFromHook(Hook):
    """Loads weights when training begins, after the runner has initialised the model."""

    priority = "VERY_HIGH"

    def __init__(self, source: str) -> None:
        self.source = source

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        report = start_from(model, self.source)
        if runner.rank == 0:
            log.info("starting from %s: %s", self.source, report)
