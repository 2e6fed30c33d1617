"""Per-epoch history of a training run: a CSV file that grows row by row, and lines on the terminal.

Validation scores are in the row of their epoch.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor

from tiltbox.files.atomic import write_text
from tiltbox.training.best import SCORES
from tiltbox.training.validation import Validation

if TYPE_CHECKING:
    from mmengine.runner import Runner

LOSSES = ("loss", "loss_cls", "loss_bbox")
COLUMNS = ("epoch", "step", "lr", *LOSSES, "seconds", *SCORES)
SECONDS_BETWEEN_LINES = 5

log = logging.getLogger("tiltbox")


@HOOKS.register_module()
class HistoryHook(Hook):
    """Appends one row per epoch to ``history.csv`` in the work folder; losses are means over the epoch.

    If the configuration says so, the detector is validated first, and a training with scores that no longer
    rise ends.

    What an unfinished epoch has summed up is in every checkpoint.

    The process that started the training passes its rows to MLflow (:mod:`tiltbox.tracking.following`).
    """

    _sums: Tensor | None  # of each loss in this epoch; None before its first step

    def __init__(self) -> None:
        self._start()

    def before_train(self, runner: Runner) -> None:
        self._file = Path(runner.work_dir) / "history.csv"
        rows = self._rows_until(runner.epoch)
        barrier()  # all must have read before one writes
        if runner.rank == 0:
            self._write_again(rows)
        self._validate_with(runner, rows)
        self._first, self._begun = runner.iter, time.monotonic()
        self._said = -math.inf

    def _validate_with(self, runner: Runner, rows: list[dict[str, str]]) -> None:
        self._validation: Validation | None = None
        self._latest = ""
        if settings := runner.cfg.get("validation"):
            self._validation = Validation(settings, self._file.parent)
            self._validation.remember(rows)
            runner.train_loop.stop_training = self._validation.gives_up

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        # Added up where they are: reading a number from a GPU at each step would make the processor wait.
        losses = torch.stack([outputs[name].detach() for name in LOSSES]).double()
        self._sums = losses if self._sums is None else self._sums + losses
        self._steps += 1
        if runner.rank == 0 and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        row, epoch = self._row(runner), runner.epoch + 1
        scores, ends = None, False
        if self._validation is not None and self._validation.is_due(epoch, runner.max_epochs):
            with runner.train_loop.interruptible():
                scores = self._validation.after_epoch(runner, epoch)
            ends = scores is not None and self._validation.gives_up
            self._latest = f"; {scores} after epoch {epoch}" if scores else self._latest
        if runner.rank == 0:
            self._append([*row, *(scores.row if scores else [""] * len(SCORES))])
        if ends:
            runner.train_loop.stop_training = True
            if runner.rank == 0:
                log.info("training ends after epoch %d: the scores no longer rise", epoch)
        self._start()

    def gather_state(self, runner: Runner) -> None:
        """Before a checkpoint, in all processes: what each has summed up since the epoch began."""
        # On the CPU: each process would otherwise start CUDA on the GPUs of all others.
        sums = None if self._sums is None else self._sums.cpu()
        mine = {"sums": sums, "steps": self._steps, "seconds": time.monotonic() - self._since}
        self._gathered = all_gather_object(mine)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self._gathered

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Continue the sums; they are empty if the checkpoint was written between two epochs."""
        mine = checkpoint["history"][runner.rank]
        self._sums, self._steps = mine["sums"], mine["steps"]
        self._since = time.monotonic() - mine["seconds"]

    def _start(self) -> None:
        self._sums = None
        self._steps, self._since = 0, time.monotonic()

    def _means(self) -> dict[str, float]:
        """Losses since the epoch began, over all steps and processes; to be called in all processes."""
        means = self._own_means()
        all_reduce(means, "mean")
        return dict(zip(LOSSES, means.tolist(), strict=True))

    def _own_means(self) -> Tensor:
        assert self._sums is not None, "there was a step"
        return (self._sums / self._steps).float()

    def _say(self, runner: Runner) -> None:
        """Log the progress of this process alone: the others may be at another step."""
        self._said = time.monotonic()
        loss, classes, boxes = (f"{mean:.3f}" for mean in self._own_means().tolist())
        step, steps = runner.iter + 1, runner.max_iters
        pace = (time.monotonic() - self._begun) / (step - self._first)
        left = timedelta(seconds=round(pace * (steps - step)))
        epoch = runner.epoch + 1
        images = runner.train_dataloader.batch_size * runner.world_size / pace
        where = f"epoch {epoch}, step {step} of {steps}, {left} left"
        losses = f"loss {loss} (classes {classes}, boxes {boxes})"
        log.info("%s: %s; %.1f images a second%s", where, losses, images, self._latest)

    def _row(self, runner: Runner) -> list[int | str]:
        """A row without scores; to be called in all processes."""
        means = [f"{value:.6f}" for value in self._means().values()]
        lr = runner.optim_wrapper.get_lr()["lr"][0]
        seconds = f"{time.monotonic() - self._since:.1f}"
        return [runner.epoch + 1, runner.iter, f"{lr:.3e}", *means, seconds]

    def _rows_until(self, last: int) -> list[dict[str, str]]:
        """The complete rows up to epoch ``last``; later ones left no checkpoint and will be repeated."""
        text = self._file.read_text() if self._file.exists() else ""
        header, *lines = text.splitlines(keepends=True) or [""]
        names = header.strip().split(",")
        whole = [line.strip().split(",") for line in lines if line.endswith("\n")]
        rows = [dict(zip(names, line, strict=True)) for line in whole if len(line) == len(names)]
        return [row for row in rows if int(row["epoch"]) <= last]

    def _write_again(self, rows: list[dict[str, str]]) -> None:
        """Write rows with the current columns, in case an earlier version began the training."""
        if not rows:
            self._file.unlink(missing_ok=True)
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self._file, text.getvalue())

    def _append(self, row: list[int | str]) -> None:
        new = not self._file.exists()
        with self._file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow(row)
