"""One row per variant, from the folders that its stages wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiltbox.errors import DataError
from tiltbox.report.records import (
    ClassMetrics,
    Complexity,
    CurvePoint,
    Epoch,
    Metrics,
    Training,
    read_record,
    read_rows,
)
from tiltbox.settings.variants import Variant

STAGES = ("train", "predict", "merge", "evaluate", "complexity")
Figure = Literal["mAP", "AP50", "AP75", "angle_median", "angle_p90", "params", "flops"]


@dataclass(frozen=True)
class Row:
    """What is known of one variant; what its stages have not written yet is None or empty.

    Attributes:
        dataset: The set it was scored on or, before that, the name of the results folder.
        size, generation: None for a variant that is in no table and not trained yet.
        config, checkpoint: Files of the training.
    """

    name: str
    dataset: str
    size: str | None = None
    generation: str | None = None
    training: Training | None = None
    history: tuple[Epoch, ...] = ()
    metrics: Metrics | None = None
    curves: tuple[CurvePoint, ...] = ()
    complexity: Complexity | None = None
    config: Path | None = None
    checkpoint: Path | None = None

    def figure(self, key: Figure) -> float | None:
        """AP as a fraction, angle errors in degrees, parameters or multiply-adds; None where not known.

        >>> Row("yoloms-xs-current", "mini").figure("AP50")
        """
        source = self.complexity if key in ("params", "flops") else self.metrics
        return None if source is None else getattr(source, key)

    @property
    def class_count(self) -> int | None:
        """Of the detector, as far as it is known."""
        if self.metrics:
            return len(self.metrics.classes)
        return self.training.data.get("classes") if self.training else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Recall and precision of a class at IoU 0.5, by falling score."""
        return [
            (each.recall, each.precision)
            for each in self.curves
            if each.name == name and each.threshold == 0.5
        ]

    def class_metrics(self, name: str) -> ClassMetrics | None:
        """What is known of a class; None where it was not scored."""
        return self.metrics.classes.get(name) if self.metrics else None

    def class_ap50(self, name: str) -> float | None:
        """AP50 of a class as a fraction."""
        found = self.class_metrics(name)
        return found and found.AP50


def collect(results: Path, variants: Mapping[str, Variant]) -> list[Row]:
    """Read all variants below ``results``: those of the table in its order, then others by name.

    Raises:
        DataError: There is no such folder, it holds no variant, or a file in it is malformed.
    """
    results = Path(results)
    if not results.is_dir():
        raise DataError(results, "there is no such folder", "run 'snakemake --cores all all_variants' first")
    names = sorted(path.parent.name for stage in STAGES for path in results.glob(f"*/{stage}"))
    names = [
        *filter(set(names).__contains__, variants),
        *dict.fromkeys(n for n in names if n not in variants),
    ]
    if not names:
        remedy = "give results/DATASET, or run 'snakemake --cores all all_variants' first"
        raise DataError(results, "holds no results of any variant", remedy)
    return [_row(results / name, variants.get(name)) for name in names]


def class_names(rows: list[Row]) -> list[str]:
    """All classes that any row was scored on, in the order of the scores."""
    return list(dict.fromkeys(name for row in rows if row.metrics for name in row.metrics.classes))


def _row(folder: Path, variant: Variant | None) -> Row:
    training = read_record(Training, folder / "train" / "train.json")
    metrics = read_record(Metrics, folder / "evaluate" / "metrics.json")
    design = training or variant
    return Row(
        name=folder.name,
        dataset=(metrics and metrics.dataset) or folder.parent.resolve().name,
        size=design and design.size,
        generation=design and design.generation,
        training=training,
        history=read_rows(Epoch, folder / "train" / "history.csv"),
        metrics=metrics,
        curves=read_rows(CurvePoint, folder / "evaluate" / "pr_curves.csv"),
        complexity=read_record(Complexity, folder / "complexity" / "complexity.json"),
        config=_existing(folder / "train" / "config.py"),
        checkpoint=_existing(folder / "train" / "checkpoint.pth"),
    )


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
