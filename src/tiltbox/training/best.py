"""Which epoch was the best one, by the scores in history.csv, and where its weights are until the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def scores_by_epoch(rows: Iterable[Mapping[str, str]]) -> dict[int, float]:
    """AP50 of those rows of a history.csv that have one."""
    return {int(row["epoch"]): float(row["val_AP50"]) for row in rows if row.get("val_AP50")}


def best_epoch(scores: Mapping[int, float]) -> int | None:
    """The first of those with the highest AP50.

    >>> best_epoch({2: 0.4, 4: 0.6, 6: 0.6})
    4
    """
    return max(sorted(scores), key=scores.get) if scores else None


def weights_of(work: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept while it is the best one."""
    return work / f"best_{epoch}.pth"


def kept_weights(work: Path) -> list[Path]:
    """All of them, by their epochs."""
    return sorted(work.glob("best_*.pth"), key=lambda path: int(path.stem.removeprefix("best_")))
