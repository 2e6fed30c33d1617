"""Scores while a detector learns: the project's own evaluation, on patches that it does not learn from.

Only some patches are scored, and without merging, so the scores are close to those of the finished detector
but not the same. Nothing is random, and the weights being trained are not changed: with the last epoch's
weights as the result, a training gives the same bits with and without validation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast, broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import EMAHook
from torch import nn

from tiltbox.dota.labels import Labels, read_labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import CheckpointError, TiltboxError, TrainingError
from tiltbox.files.atomic import atomic_file
from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.metrics.score import Task1Score, evaluate_task1
from tiltbox.model.inference import detect_patches
from tiltbox.training.best import best_epoch, kept_weights, scores_by_epoch, weights_of
from tiltbox.training.finite import REMEDY
from tiltbox.training.validation_patches import patches_to_validate

if TYPE_CHECKING:
    from mmengine.runner import Runner

DECIMALS = 6  # of scores in history.csv, from which the best epoch is found

log = logging.getLogger("tiltbox")

Accuracies = tuple[float | None, float | None]  # AP50 and mAP


def score_patches(
    columns: Mapping[str, np.ndarray], labels: Mapping[str, Labels], classes: tuple[str, ...]
) -> Task1Score:
    """Score what :func:`tiltbox.model.inference.detect_patches` returns, each patch as an image."""
    qboxes = rbox_to_qbox(columns["rboxes"].astype(np.float64))
    scores = columns["score"].astype(np.float64)
    detections = {}
    for index, name in enumerate(classes):
        rows = columns["label"] == index
        detections[name] = ClassDetections.of(columns["patch"][rows].tolist(), scores[rows], qboxes[rows])
    return evaluate_task1(detections, labels, classes)


@dataclass(frozen=True)
class Scores:
    """The scores of one validation; AP as fractions, None without objects.

    Attributes:
        seconds: The time that it took.
    """

    AP50: float | None
    mAP: float | None
    patches: int
    seconds: float

    @property
    def row(self) -> list[str]:
        """The values in the order of :data:`tiltbox.training.best.SCORES`."""
        values = ["" if value is None else f"{value:.{DECIMALS}f}" for value in (self.AP50, self.mAP)]
        return [*values, f"{self.seconds:.1f}"]

    def __str__(self) -> str:
        values = {"AP50": self.AP50, "mAP": self.mAP}
        known = [f"{key} {100 * value:.2f}" for key, value in values.items() if value is not None]
        return ", ".join(known) or "no objects to score"


class Validation:
    """Validates after the epochs that are due, and keeps the best weights.

    It must be used in all processes: each detects on its share of the patches.

    Args:
        settings: ``validation`` of the resolved configuration (:mod:`tiltbox.training.config`).
        work: Where the best weights are kept (:mod:`tiltbox.training.best`).
    """

    def __init__(self, settings: Mapping[str, Any], work: Path) -> None:
        self._settings, self._work = settings, work
        self._labels = patches_to_validate(Path(settings["patches"]), settings["most"], settings["images"])
        self._scores: dict[int, float] = {}  # AP50 by epoch

    def remember(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Use the rows of history.csv from before a resume."""
        self._scores = scores_by_epoch(rows)

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether to validate after an epoch: every few epochs, counted from the last, which is included."""
        return (epochs - epoch) % self._settings["every"] == 0

    def after_epoch(self, runner: Runner, epoch: int) -> Scores | None:
        """Validate the weights that the training would end with; None if that failed.

        Raises:
            TrainingError: The detector's outputs are not finite.
        """
        begun = time.monotonic()
        model = _averaged(runner) or _unwrapped(runner.model)
        for buffer in model.buffers():  # on CPUs each process has its own; the first one's are saved
            broadcast(buffer)
        before = best_epoch(self._scores)
        found = self._agreed(self._detected(model))
        if isinstance(found, TiltboxError):
            self._failed(found, epoch)
            return None
        scores = Scores(*found, len(self._labels), time.monotonic() - begun)
        if scores.AP50 is not None:
            self._scores[epoch] = round(scores.AP50, DECIMALS)
        if get_rank() == 0:
            what = (epoch, scores, scores.patches, scores.seconds)
            log.info("validation after epoch %d: %s, on %d patches in %.1f s", *what)
            if best_epoch(self._scores) == epoch:
                self._keep(model, epoch, before)
        return scores

    @property
    def gives_up(self) -> bool:
        """Whether none of the last few validations was better than an earlier one."""
        patience, best = self._settings["patience"], best_epoch(self._scores)
        if not patience or best is None:
            return False
        return sum(epoch > best for epoch in self._scores) >= patience

    def _detected(self, model: nn.Module) -> dict[str, np.ndarray] | TiltboxError:
        """Detections on this process's share of the patches, or the error, which all processes must know."""
        mine = self._labels[get_rank() :: get_world_size()]
        images = [path.parents[1] / "images" / f"{path.stem}.png" for path in mine]
        was_training = model.training
        try:
            size, batch = self._settings["image_size"], self._settings["batch"]
            return detect_patches(model.eval(), images, image_size=size, batch=batch, label="validation")
        except TiltboxError as error:
            return error
        except (RuntimeError, OSError) as error:  # for example if the memory of a GPU is too small
            return _unforeseen(error)
        finally:
            model.train(was_training)

    def _agreed(self, mine: dict[str, np.ndarray] | TiltboxError) -> Accuracies | TiltboxError:
        """AP50 and mAP of the detections of all processes, computed by the first one."""
        parts = all_gather_object(mine)
        result: list[Accuracies | TiltboxError | None] = [
            next((part for part in parts if isinstance(part, TiltboxError)), None)
        ]
        if result[0] is None and get_rank() == 0:
            result[0] = self._scored(parts)
        broadcast_object_list(result)
        assert result[0] is not None  # the first process has it
        return result[0]

    def _scored(self, parts: list[dict[str, np.ndarray]]) -> Accuracies | TiltboxError:
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        classes = tuple(self._settings["classes"])
        try:
            labels = {path.stem: read_labels(path, classes) for path in self._labels}
            found = score_patches(columns, labels, classes)
        except TiltboxError as error:
            return error
        except (RuntimeError, OSError, MemoryError) as error:
            return _unforeseen(error)
        return found.ap(0.5), found.mean_ap

    def _failed(self, error: TiltboxError, epoch: int) -> None:
        """Continue the training without scores, unless they decide how it ends."""
        if isinstance(error, CheckpointError):
            problem = "the detector gives scores or boxes that are not finite, so the training diverged"
            raise TrainingError(f"epoch {epoch}", problem, REMEDY)
        if self._settings["patience"] or self._settings["checkpoint"] == "best":
            raise error
        if get_rank() == 0:
            log.warning("no validation after epoch %d: %s", epoch, error)

    def _keep(self, model: nn.Module, epoch: int, before: int | None) -> None:
        """Keep the weights of a new best epoch, and the previous best, in case this epoch must be
        repeated."""
        for path in kept_weights(self._work):
            if before is None or path != weights_of(self._work, before):
                path.unlink()
        with atomic_file(weights_of(self._work, epoch)) as temporary:
            torch.save({"state_dict": model.state_dict()}, temporary)


def _unforeseen(error: Exception) -> TiltboxError:
    what = " ".join(str(error).split()) or type(error).__name__
    return TiltboxError(
        "validation", what, "score fewer patches, or set validation: every to 0 in the schedule"
    )


def _averaged(runner: Runner) -> nn.Module | None:
    hooks = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return next((hook.ema_model.module for hook in hooks), None)


def _unwrapped(model: nn.Module) -> nn.Module:
    return getattr(model, "module", model)
