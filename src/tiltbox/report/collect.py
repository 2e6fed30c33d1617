"""One row per variant, from the folders that its stages wrote.

A variant's folder contains the stages of the training with seed 0; other seeds have subfolders, ``seed-1``
and so on. The complexity does not depend on the seed and is there once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from tiltbox import layout
from tiltbox.errors import DataError
from tiltbox.model.variant import Variant
from tiltbox.provenance import SUFFIX, Provenance, beside, images_behind, read_provenance
from tiltbox.records import (
    Accuracy,
    Complexity,
    CurvePoint,
    Epoch,
    Gallery,
    Metrics,
    Training,
    read_record,
    read_rows,
)
from tiltbox.scores import COSTS, Key

# Settings that trainings must share to be averaged; the report says so if a pair differs in them.
RECIPE = ("epochs", "images_per_step", "learning_rate", "image_size", "augmentation")
STAGES = ("train", "predict", "merge", "evaluate", "complexity")


@dataclass(frozen=True)
class Row:
    """What is known about one variant; what its stages have not written yet is None or empty.

    Attributes:
        dataset: The dataset it was scored on or, before that, the name of the results folder.
        size, series: None for a variant that is not in the table and not trained yet.
        compared_with: Names of the rows to which its differences are shown.
        config, checkpoint: Files of the training.
        outcomes: The outcome of each detection, for resampling.
        record: Where the scores come from (:mod:`tiltbox.provenance`).
        provenance: The record of the training.
        gallery: A few test images with labels and detections.
        folder: Where the stages of this run left their files.
        seen_before: The number of test images that are, byte for byte, among its training images; None if not
            known.
        others: The same variant trained with further seeds.
        left_out: Seeds with which it was trained or scored differently.
    """

    name: str
    dataset: str
    size: str | None = None
    series: str | None = None
    compared_with: tuple[str, ...] = ()
    training: Training | None = None
    history: tuple[Epoch, ...] = ()
    metrics: Metrics | None = None
    curves: tuple[CurvePoint, ...] = ()
    complexity: Complexity | None = None
    config: Path | None = None
    checkpoint: Path | None = None
    outcomes: Path | None = None
    record: Path | None = None
    provenance: Provenance | None = None
    gallery: Gallery | None = None
    folder: Path | None = None
    seen_before: int | None = None
    others: tuple[Row, ...] = ()
    left_out: tuple[int, ...] = ()

    @property
    def runs(self) -> tuple[Row, ...]:
        """One for each seed, in the order of the seeds."""
        return tuple(sorted((replace(self, others=()), *self.others), key=lambda run: run.seed or 0))

    @property
    def scored(self) -> tuple[Row, ...]:
        """The runs that have scores."""
        return tuple(run for run in self.runs if run.metrics)

    @property
    def seed(self) -> int | None:
        """The seed of this run."""
        return self.training.seed if self.training else None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of all runs."""
        return tuple(run.training.seed for run in self.runs if run.training)

    def file(self, name: str) -> Path | None:
        """A file of this run, by its path in the run's folder; None if it does not exist."""
        return _existing(self.folder / name) if self.folder else None

    def figure(self, key: Key) -> float | None:
        """AP as a fraction, angle errors in degrees, parameters or multiply-adds; None where not known.

        A figure that depends on the training is the mean over its runs.

        >>> Row("yoloms-xs-current", "mini").figure("AP50")
        """
        if key in (figure.key for figure in COSTS):
            return _figure(self.complexity, key)
        return mean(_figure(run.metrics, key) for run in self.scored)

    def spread(self, key: Key) -> float | None:
        """The standard deviation over runs, with n - 1; None for a single run."""
        values = [_figure(run.metrics, key) for run in self.scored]
        known = [value for value in values if value is not None]
        return stdev(known) if len(known) == len(values) > 1 else None

    @property
    def class_count(self) -> int | None:
        """The number of classes of the detector, if known."""
        if self.metrics:
            return len(self.metrics.classes)
        count = self.training.data.get("classes") if self.training else None
        return count if isinstance(count, int) else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Recall and precision of a class at IoU 0.5, by falling score."""
        return [
            (each.recall, each.precision)
            for each in self.curves
            if each.name == name and each.threshold == 0.5
        ]

    def class_figure(self, name: str, key: Key) -> float | None:
        """The mean over runs for a class; None if it was not scored or has no objects."""
        found = (run.metrics.classes.get(name) for run in self.runs if run.metrics)
        return mean(_figure(each, key) for each in found)

    def class_ap50(self, name: str) -> float | None:
        """AP50 of a class as a fraction."""
        return self.class_figure(name, "AP50")


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None if there are none.

    >>> mean([0.25, None, 0.75]), mean([])
    (0.5, None)
    """
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _figure(record: Accuracy | Complexity | None, key: Key) -> float | None:
    value: float | None = getattr(record, key) if record else None
    return value


def collect(results: Path, variants: Mapping[str, Variant]) -> list[Row]:
    """Read all variants below ``results``: those of the table in its order, then others by name.

    Raises:
        DataError: The folder does not exist, it contains no variant, or a file in it is malformed.
    """
    results = Path(results)
    if not results.is_dir():
        raise DataError(results, "folder not found", "run 'snakemake --cores all all_variants' first")
    depths = ("*", f"*/{layout.SEED}*")
    places = (path for depth in depths for stage in STAGES for path in results.glob(f"{depth}/{stage}"))
    names = sorted(path.relative_to(results).parts[0] for path in places)
    names = [
        *filter(set(names).__contains__, variants),
        *dict.fromkeys(n for n in names if n not in variants),
    ]
    if not names:
        remedy = "give results/DATASET, or run 'snakemake --cores all all_variants' first"
        raise DataError(results, "contains no results of any variant", remedy)
    return [_row(results / name, variants.get(name)) for name in names]


def class_names(rows: Sequence[Row]) -> list[str]:
    """All classes that any row was scored on, in the order of the scores."""
    return list(dict.fromkeys(name for row in rows if row.metrics for name in row.metrics.classes))


def _row(folder: Path, variant: Variant | None) -> Row:
    """The row of all runs; the first one that has been trained stands for the variant.

    Other runs count if they were trained by the same recipe and scored on the same labels: older ones, from
    before a change, are named but not averaged.
    """
    seeds = [path for path in folder.glob(f"{layout.SEED}*/") if _SEED_FOLDER.fullmatch(path.name)]
    complexity = read_record(Complexity, folder / "complexity" / "complexity.json")
    places = [folder, *sorted(seeds, key=lambda path: int(path.name.removeprefix(layout.SEED)))]
    runs = [_run(place, folder, variant, complexity) for place in places]
    first, *others = [run for run in runs if run.training or run.metrics] or runs[:1]
    alike = tuple(run for run in others if _ground(run) == _ground(first))
    unlike = tuple(run.seed for run in others if run not in alike and run.seed is not None)
    return replace(first, others=alike, left_out=unlike)


_SEED_FOLDER = re.compile(rf"{layout.SEED}[1-9][0-9]*")


def _ground(run: Row) -> tuple[object, ...]:
    """What runs must share to be averaged."""
    training, metrics = run.training, run.metrics
    return (
        [getattr(training, key) for key in (*RECIPE, "pretrained")] if training else None,
        training.data.get("contents") if training else None,
        (metrics.dataset, metrics.split, metrics.labels) if metrics else None,
    )


def _run(folder: Path, of: Path, variant: Variant | None, complexity: Complexity | None) -> Row:
    training = read_record(Training, folder / "train" / "train.json")
    metrics = read_record(Metrics, folder / "evaluate" / "metrics.json")
    design, look = training or variant, variant or training
    return Row(
        name=of.name,
        dataset=(metrics.dataset if metrics else "") or of.parent.resolve().name,
        size=design.size if design else None,
        series=look.series if look else None,
        compared_with=variant.compared_with if variant else (),
        training=training,
        history=read_rows(Epoch, folder / "train" / "history.csv"),
        metrics=metrics,
        curves=read_rows(CurvePoint, folder / "evaluate" / "pr_curves.csv"),
        complexity=complexity,
        config=_existing(folder / "train" / "config.py"),
        checkpoint=_existing(folder / "train" / "checkpoint.pth"),
        outcomes=_existing(folder / "evaluate" / layout.OUTCOMES),
        seen_before=_seen_before(folder),
        record=_existing(beside(folder / "evaluate" / "metrics.json")),
        provenance=_provenance(folder / "train" / SUFFIX),
        gallery=read_record(Gallery, folder / "evaluate" / layout.GALLERY),
        folder=folder,
    )


def _seen_before(folder: Path) -> int | None:
    trained = images_behind(folder / "train" / SUFFIX)
    tested = images_behind(beside(folder / "predict" / "detections.parquet"))
    return None if trained is None or tested is None else len(trained & tested)


def _provenance(path: Path) -> Provenance | None:
    return read_provenance(path) if path.is_file() else None


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
