"""Per-epoch history of a training run: a CSV file that grows row by row, a line on the terminal, MLflow."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from tiltbox import tracking
from tiltbox.files import write_text

COLUMNS = ("epoch", "step", "lr", "loss", "loss_cls", "loss_bbox", "seconds")
LOSSES = COLUMNS[3:6]
SECONDS_BETWEEN_LINES = 5

log = logging.getLogger("tiltbox")


@HOOKS.register_module()
class HistoryHook(Hook):
    """Appends one row per epoch to ``history.csv`` in the work folder; losses are means over the epoch.

    Where the configuration names an MLflow run under ``tracking``, each row is logged there as well; should
    that fail, the training goes on, and the row is logged with the next.
    """

    def before_train(self, runner) -> None:
        self._file = Path(runner.work_dir) / "history.csv"
        if runner.rank == 0:
            self._drop_steps_after(runner.iter)
        self._first, self._begun = runner.iter, time.monotonic()
        self._said = -math.inf
        self._start()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for name in LOSSES:
            self._sums[name] += outputs[name].item()
        self._steps += 1
        if runner.rank == 0 and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say(runner)

    def after_train_epoch(self, runner) -> None:
        self._write(runner)

    def _start(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._steps, self._since = 0, time.monotonic()

    def _means(self) -> dict[str, float]:
        """Losses since the epoch began, over all steps and processes; to be called in all processes."""
        means = torch.tensor([self._sums[name] / self._steps for name in LOSSES])
        all_reduce(means, "mean")
        return dict(zip(LOSSES, means.tolist(), strict=True))

    def _say(self, runner) -> None:
        """Of this process alone: the others may be at another step."""
        self._said = time.monotonic()
        losses = ", ".join(f"{name} {self._sums[name] / self._steps:.3f}" for name in LOSSES)
        step, steps = runner.iter + 1, runner.max_iters
        pace = (time.monotonic() - self._begun) / (step - self._first)
        left = timedelta(seconds=round(pace * (steps - step)))
        epoch = runner.epoch + 1
        images = runner.train_dataloader.batch_size * runner.world_size / pace
        log.info(
            f"step {step} of {steps}, epoch {epoch}: {losses}; {images:.1f} images a second, {left} left"
        )

    def _write(self, runner) -> None:
        means = [f"{value:.6f}" for value in self._means().values()]
        if runner.rank == 0:
            lr = runner.optim_wrapper.get_lr()["lr"][0]
            seconds = f"{time.monotonic() - self._since:.1f}"
            row = [runner.epoch + 1, runner.iter, f"{lr:.3e}", *means, seconds]
            self._append(row)
            if run := runner.cfg.get("tracking"):
                with tracking.best_effort(f"epoch {runner.epoch + 1}"):
                    tracking.log_history(run, self._file)
        self._start()

    def _drop_steps_after(self, last: int) -> None:
        """Leave out rows of epochs that ended without a checkpoint and so come again, and one cut off."""
        if last == 0:
            self._file.unlink(missing_ok=True)
        elif self._file.exists():
            header, *rows = self._file.read_text().splitlines(keepends=True)
            whole = [row for row in rows if row.count(",") == len(COLUMNS) - 1 and row.endswith("\n")]
            done = [row for row in whole if int(row.split(",")[COLUMNS.index("step")]) <= last]
            write_text(self._file, "".join([header, *done]))

    def _append(self, row: list) -> None:
        new = not self._file.exists()
        with self._file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow(row)
