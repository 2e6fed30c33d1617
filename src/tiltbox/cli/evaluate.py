"""``tiltbox evaluate``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tiltbox.cli.options import (
    add_data_file,
    add_dataset,
    add_labels,
    add_out,
    add_track,
    classes_of,
    dataset_name_of,
)
from tiltbox.defaults import ABSENT_CLASSES

HELP = "score merged detections by the rules of the DOTA devkit"


def add_options(verb: ArgumentParser) -> None:
    help = "folder or zip of Task1_<class>.txt, or Ultralytics' predictions.json of whole images"
    verb.add_argument("task1", type=Path, metavar="TASK1_DIR", help=help)
    add_labels(verb)
    add_out(
        verb, "FILE.json", "metrics; dota.txt, pr_curves.csv, confusion.csv, outcomes.parquet go beside it"
    )
    verb.add_argument("--split", default="", metavar="NAME", help="name of the split, for the record")
    help = "classes without objects: left out of the mean, or 0 as in the devkit (default: %(default)s)"
    verb.add_argument("--absent-classes", choices=("null", "zero"), default=ABSENT_CLASSES, help=help)
    help = "folder of the images, to keep some with their boxes in gallery.json"
    verb.add_argument("--images", type=Path, metavar="DIR", help=help)
    add_data_file(verb)
    add_dataset(verb)
    add_track(verb)


def run(options: Namespace) -> None:
    from tiltbox.stages.evaluate import evaluate, metrics_table

    metrics = evaluate(
        options.task1,
        options.labels,
        options.out,
        dataset=dataset_name_of(options),
        split=options.split,
        absent_classes=options.absent_classes,
        classes=classes_of(options),
        data_file=options.data_file,
        images=options.images,
        track=options.track,
    )
    print(metrics_table(metrics))
