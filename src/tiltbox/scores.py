"""The figures that detectors are compared by: what they are called, how they are shown, which is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MISSING = "–"
Key = Literal["mAP", "AP50", "AP75", "angle_median", "angle_p90", "params", "flops"]


@dataclass(frozen=True)
class Figure:
    """One figure of a detector.

    Attributes:
        key: Its name in records and CSV files.
        label, short: Its name in tables, and where there is little room.
        factor: The factor by which it is multiplied to be shown.
        decimals: Decimals that are shown.
        better: Whether more of it is better, or less.
    """

    key: Key
    label: str
    short: str
    factor: float
    decimals: int
    better: Literal["more", "less"]

    def text(self, value: float | None) -> str:
        """As tables show it, with a dash for what is not known.

        >>> ACCURACIES[1].text(0.75877), ANGLES[0].text(4.26), COSTS[0].text(4479830), COSTS[0].text(None)
        ('75.88', '4.3', '4.48', '–')
        """
        return MISSING if value is None else f"{self.factor * value:.{self.decimals}f}"


ACCURACIES = (
    Figure("mAP", "mAP", "mAP", 100, 2, "more"),
    Figure("AP50", "AP50", "AP50", 100, 2, "more"),
    Figure("AP75", "AP75", "AP75", 100, 2, "more"),
)
ANGLES = (
    Figure("angle_median", "angle error (°)", "angle°", 1, 1, "less"),
    Figure("angle_p90", "p90 (°)", "p90°", 1, 1, "less"),
)
COSTS = (
    Figure("params", "params (M)", "params (M)", 1e-6, 2, "less"),
    Figure("flops", "FLOPs (G)", "FLOPs (G)", 1e-9, 2, "less"),
)
FIGURES = (*ACCURACIES, *ANGLES, *COSTS)
MEASURED = (*ACCURACIES, *ANGLES)  # those that depend on the training
