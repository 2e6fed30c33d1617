"""``tiltbox predict``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tiltbox.cli.options import (
    add_dataset,
    add_gpus,
    add_out,
    add_schedule,
    add_variant,
    at_least,
    classes_of,
    schedule_of,
)
from tiltbox.cli.wording import counted
from tiltbox.defaults import PREDICTION_BATCH

HELP = "detect objects on all patches of a split"
PUBLISHED = "published"  # in place of a checkpoint


def add_options(verb: ArgumentParser) -> None:
    add_variant(verb)
    help = f"trained weights of the variant; {PUBLISHED}: those that its authors trained on DOTA-v1.0"
    verb.add_argument("--checkpoint", required=True, metavar="FILE_OR_URL", help=help)
    verb.add_argument("--patches", type=Path, required=True, metavar="DIR", help="patches from split")
    add_out(verb, "FILE.parquet", "detections, in pixels of the patches")
    help = "side to resize patches to (default: that of the checkpoint's training, else that of the schedule)"
    verb.add_argument("--image-size", type=at_least(32), metavar="PX", help=help)
    add_schedule(verb, "1024 px if the checkpoint names no size, and all CPU threads")
    help = "patches at a time (default: %(default)s)"
    verb.add_argument("--batch", type=at_least(1), default=PREDICTION_BATCH, metavar="N", help=help)
    add_gpus(verb, "all")
    add_dataset(verb, schedule=True)


def run(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.settings.auto import for_prediction
    from tiltbox.stages.predict import predict

    schedule = schedule_of(options) or for_prediction()
    count = predict(
        options.variant,
        find_variant(options.variant),
        _checkpoint(options),
        options.patches,
        options.out,
        classes=classes_of(options),
        image_size=options.image_size,
        fallback_image_size=schedule.image_size,
        gpus=options.gpus,
        threads=schedule.threads,
        batch=options.batch,
    )
    print(counted(count, "detection"))


def _checkpoint(options: Namespace) -> str:
    """The file or address of the weights."""
    from tiltbox.model.variants import published_checkpoint

    return published_checkpoint(options.variant) if options.checkpoint == PUBLISHED else options.checkpoint
