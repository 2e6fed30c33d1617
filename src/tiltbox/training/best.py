"""The best epoch, by the scores in history.csv, and the place of its weights until the end."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from tiltbox.files.atomic import write_text

SCORES = ("val_AP50", "val_mAP", "val_seconds")  # columns of history.csv, empty for an epoch without

log = logging.getLogger("tiltbox")


def scores_by_epoch(rows: Iterable[Mapping[str, str]]) -> dict[int, float]:
    """AP50 of the rows of a history.csv that have one."""
    return {int(row["epoch"]): float(row["val_AP50"]) for row in rows if row.get("val_AP50")}


def best_epoch(scores: Mapping[int, float]) -> int | None:
    """The first epoch with the highest AP50.

    >>> best_epoch({2: 0.4, 4: 0.6, 6: 0.6})
    4
    """
    return max(sorted(scores), key=scores.__getitem__) if scores else None


def forget_scores(work: Path) -> None:
    """Remove scores from history.csv, and the best weights, if a training resumes with other patches.

    Scores on different patches must not be compared, neither to find the best epoch nor by a reader.
    """
    history = work / "history.csv"
    text = history.read_text() if history.exists() else ""
    rows = list(csv.DictReader(io.StringIO(text)))
    if not scores_by_epoch(rows):
        return
    cleared = io.StringIO(newline="")
    writer = csv.DictWriter(cleared, list(rows[0]))
    writer.writeheader()
    writer.writerows(row | {name: "" for name in SCORES if name in row} for row in rows)
    write_text(history, cleared.getvalue())
    for path in kept_weights(work):
        path.unlink()
    log.warning("the patches to validate on have changed: the scores of earlier epochs are dropped")


def weights_of(work: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept while it is the best."""
    return work / f"best_{epoch}.pth"


def kept_weights(work: Path) -> list[Path]:
    """All kept weights, sorted by epoch."""
    return sorted(work.glob("best_*.pth"), key=lambda path: int(path.stem.removeprefix("best_")))
