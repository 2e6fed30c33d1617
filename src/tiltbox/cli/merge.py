"""``tiltbox merge``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tiltbox.cli.options import add_data_file, add_dataset, add_out, classes_of
from tiltbox.cli.wording import counted, warn_of
from tiltbox.defaults import MERGE_IOU

HELP = "merge patch detections into whole images, with per-class NMS"


def add_options(verb: ArgumentParser) -> None:
    help = "a detections.parquet, a folder or zip of Task1 files, or Ultralytics' predictions.json"
    verb.add_argument("detections", type=Path, metavar="DETECTIONS", help=help)
    add_out(verb, "DIR", "folder for Task1_<class>.txt and Task1.zip")
    help = "suppress above this IoU (default: %(default)s)"
    verb.add_argument("--iou", type=float, default=MERGE_IOU, metavar="T", help=help)
    add_data_file(verb)
    add_dataset(verb)


def run(options: Namespace) -> None:
    from tiltbox.stages.merge import merge

    counts = merge(
        options.detections,
        options.out,
        iou=options.iou,
        classes=classes_of(options),
        data_file=options.data_file,
    )
    found, images = counted(counts["detections"], "detection"), counted(counts["images"], "image")
    print(f"{counts['kept']:,} of {found} on {images} kept")
    warn_of(counts["not_finite"], "detection", "with a number that is NaN, infinite or beyond 1e7 left out")
