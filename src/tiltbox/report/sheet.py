"""The leaderboard as CSV for other programs: one row per variant, raw numbers, empty where not known.

==========================================  ==============================================================
column                                      content
==========================================  ==============================================================
variant, size, generation                   name; xs, s or l; previous or current
dataset, split, images, objects             what accuracy was measured on
mAP, AP50, AP75                             fractions; mAP is the mean over IoU .5:.05:.95
angle_median, angle_p90                     angle error in degrees, of elongated objects that were found
params, flops                               counts; multiply-adds at the input ``input``
pretrained, augmentation                    weights at the start; words joined by ``+``
epochs, steps, images_per_step, processes   the schedule
learning_rate, image_size, seed             the same
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

from tiltbox.report.collect import Figure, Row, class_names
from tiltbox.report.tables import relative

FIGURES: tuple[Figure, ...] = ("mAP", "AP50", "AP75", "angle_median", "angle_p90", "params", "flops")
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


def sheet(rows: Sequence[Row], out: Path) -> str:
    """The CSV text; files are named relative to the folder ``out``."""
    records = [_record(row, class_names(rows), out) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row, classes: list[str], out: Path) -> dict[str, Any]:
    """None becomes an empty field."""
    metrics, counts = row.metrics, row.complexity
    return {
        "variant": row.name,
        "size": row.size,
        "generation": row.generation,
        "dataset": row.dataset,
        "split": metrics and metrics.split,
        "images": metrics and metrics.images,
        "objects": metrics and metrics.objects,
        **{key: row.figure(key) for key in FIGURES},
        "input": counts and "x".join(map(str, counts.input)),
        **{key: _plain(getattr(row.training, key, None)) for key in TRAINING},
        "config": relative(row.config, out),
        "checkpoint": relative(row.checkpoint, out),
        **{
            f"{key}/{name}": getattr(row.class_metrics(name), key, None)
            for key in ("AP50", "angle_median", "angle_p90")
            for name in classes
        },
    }


def _plain(value: Any) -> Any:
    return "+".join(value) if isinstance(value, tuple) else value
