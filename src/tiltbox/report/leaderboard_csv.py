"""The leaderboard as CSV for other programs: one row per variant, raw numbers, empty where not known.

==========================================  ==============================================================
column                                      content
==========================================  ==============================================================
variant, size, series                       name; a size of its family; what legends call it
dataset, split, images, objects             what accuracy was measured on
mAP, AP50, AP75                             fractions, means over seeds; mAP is that over IoU .5:.05:.95
mAP_std, AP50_std, AP75_std                 standard deviation over seeds
mAP_low, mAP_high, AP50_low, AP50_high,     the 95 % intervals, of a bootstrap over images and seeds
AP75_low, AP75_high
angle_median, angle_p90                     angle error in degrees, of elongated objects that were found
params, flops                               counts; multiply-adds at the input ``input``
pretrained, augmentation                    weights at the start; words joined by ``+``
epochs, steps, images_per_step, processes   the schedule
learning_rate, image_size, seed             the same; the first seed
seeds                                       all, joined by ``+``
device, seconds                             where and how long training ran
config_hash, git_commit                     settings and code
config, checkpoint                          files, relative to the CSV
AP50/<class>                                fractions, one column per class
angle_median/<class>, angle_p90/<class>     degrees, one column of each per class
==========================================  ==============================================================
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiltbox.report.collect import Row, class_names
from tiltbox.report.leaderboard_tables import relative
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty
from tiltbox.scores import ACCURACIES, FIGURES

TRAINING = (
    "pretrained",
    "augmentation",
    "epochs",
    "steps",
    "images_per_step",
    "processes",
    "learning_rate",
    "image_size",
    "seed",
    "device",
    "seconds",
    "config_hash",
    "git_commit",
)


def leaderboard_csv(rows: Sequence[Row], out: Path, sure: Uncertainty = UNKNOWN) -> str:
    """The CSV text; files are named relative to the folder ``out``."""
    records = [_record(row, class_names(rows), out, sure) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row, classes: list[str], out: Path, sure: Uncertainty) -> dict[str, Any]:
    """The fields of a row; None becomes an empty one."""
    metrics, counts, ranges = row.metrics, row.complexity, sure.ranges(row)
    return {
        "variant": row.name,
        "size": row.size,
        "series": row.series,
        "dataset": row.dataset,
        "split": metrics.split if metrics else None,
        "images": metrics.images if metrics else None,
        "objects": metrics.objects if metrics else None,
        **{figure.key: row.figure(figure.key) for figure in FIGURES},
        **{f"{figure.key}_std": row.spread(figure.key) for figure in ACCURACIES},
        **{
            f"{figure.key}_{bound}": (ranges.get(figure.key) or (None, None))[at]
            for figure in ACCURACIES
            for at, bound in enumerate(("low", "high"))
        },
        "input": "x".join(map(str, counts.input)) if counts else None,
        **{key: _plain(getattr(row.training, key, None)) for key in TRAINING},
        "seeds": "+".join(map(str, row.seeds)),
        "config": relative(row.config, out) if row.config else None,
        "checkpoint": relative(row.checkpoint, out) if row.checkpoint else None,
        **{
            f"{key}/{name}": row.class_figure(name, key)
            for key in ("AP50", "angle_median", "angle_p90")
            for name in classes
        },
    }


def _plain(value: Any) -> Any:
    return "+".join(value) if isinstance(value, tuple) else value
