"""Moves what a finished training leaves from its work folder to the folder of its results."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbox.errors import CheckpointError
from tiltbox.files.atomic import write_text
from tiltbox.model.checkpoint import read_checkpoint, save_checkpoint
from tiltbox.records import Training, Validated, write_record
from tiltbox.training.best import best_epoch, scores_by_epoch, weights_of
from tiltbox.training.config import read_config
from tiltbox.training.resume import last_checkpoint

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger("tiltbox")

CHECKPOINT, BEST, LAST = "checkpoint.pth", "best.pth", "last.pth"


def publish(work: Path, out: Path, facts: Mapping[str, Any], classes: tuple[str, ...]) -> list[Path]:
    """Copy the results; optimiser states and older epochs stay behind. Returns the files.

    checkpoint.pth contains the weights of the last epoch or, if the schedule says so, of the best one. The
    other of the two is beside it, unless they are the same.

    Raises:
        CheckpointError: No checkpoint is complete.
    """
    config = read_config(work / "config.py")
    rows = _rows(work / "history.csv")
    validated = _validated(config, rows)
    weights = _weights(work, validated, int(rows[-1]["epoch"]))
    for name in {BEST, LAST} - weights.keys():
        (out / name).unlink(missing_ok=True)
    config.update(resume=False, load_from=None)  # they are of this run only
    write_text(out / "config.py", config.pretty_text)
    write_text(out / "history.csv", (work / "history.csv").read_text())
    write_record(out / "train.json", _facts(facts, rows, validated))
    meta = {"variant": facts["variant"], "classes": list(classes), "image_size": facts["image_size"]}
    for name, source in weights.items():
        save_checkpoint(out / name, read_checkpoint(source)[0], meta)
    return [out / name for name in ("config.py", "history.csv", "train.json", *weights)]


def _rows(history: Path) -> list[dict[str, str]]:
    with history.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _validated(config: Config, rows: list[dict[str, str]]) -> Validated | None:
    scores = scores_by_epoch(rows)
    best = best_epoch(scores)
    if best is None:
        return None
    settings = config.get("validation") or {}  # missing if resumed without it
    return Validated(
        held_out_images=len(settings.get("images") or ()),
        best_epoch=best,
        best_AP50=scores[best],
        checkpoint=settings.get("checkpoint", "last"),
        seconds=round(sum(float(row["val_seconds"]) for row in rows if row.get("val_seconds")), 1),
    )


def _weights(work: Path, validated: Validated | None, last_epoch: int) -> dict[str, Path]:
    """Where the weights come from, by the name of the file to write; the result itself is the last."""
    last = last_checkpoint(work)
    if last is None:
        remedy = "free some space if the disk is full, and start the training again"
        raise CheckpointError(work, "contains no complete checkpoint", remedy)
    if validated is None or validated.best_epoch == last_epoch:
        return {CHECKPOINT: last}
    best = weights_of(work, validated.best_epoch)
    if not best.exists():  # for example if the removal of the work folder was cut off
        log.warning(
            "the weights of the best epoch, %d, are missing: those of the last epoch are used",
            validated.best_epoch,
        )
        return {CHECKPOINT: last}
    if validated.checkpoint == "best":
        return {LAST: last, CHECKPOINT: best}
    return {BEST: best, CHECKPOINT: last}


def _facts(facts: Mapping[str, Any], rows: list[dict[str, str]], validated: Validated | None) -> Training:
    seconds = round(sum(float(row["seconds"]) for row in rows), 1)  # including runs before a resume
    epochs = min(facts["epochs"], int(rows[-1]["epoch"])) if validated else facts["epochs"]
    steps = int(rows[-1]["step"])
    return Training(**{**facts, "epochs": epochs}, steps=steps, seconds=seconds, validation=validated)
