"""``tiltbox train``"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path

from tiltbox.cli.options import (
    add_dataset,
    add_gpus,
    add_out,
    add_schedule,
    add_track,
    add_variant,
    at_least,
    classes_of,
    schedule_of,
)

HELP = "train a variant on GPUs or the CPU; several tasks of SLURM (srun) train together"


def add_options(verb: ArgumentParser) -> None:
    add_variant(verb)
    verb.add_argument(
        "--patches", type=Path, required=True, metavar="DIR", help="labelled patches from split"
    )
    add_out(verb, "DIR", "folder for checkpoint.pth, config.py, history.csv and train.json")
    help = "other labelled patches to score it on, as often as the schedule says (default: none)"
    verb.add_argument("--validate", type=Path, metavar="DIR", help=help)
    add_gpus(verb, "as many as the schedule says, or 0 on a machine without any")
    verb.add_argument(
        "--processes", type=at_least(1), metavar="N", help="training processes on the CPU (default: 1)"
    )
    add_schedule(verb)
    _add_beginning(verb)
    add_dataset(verb, schedule=True)
    add_track(verb)


def _add_beginning(verb: ArgumentParser) -> None:
    help = "seed of weights, order and augmentation (default: that of the schedule, which is 0 unless set)"
    verb.add_argument("--seed", type=at_least(0), metavar="N", help=help)
    help = "weights to start from, in place of the variant's; random: none, whatever the schedule says"
    verb.add_argument("--start", metavar="FILE_OR_URL", help=f"{help} (for a file of that name: ./random)")
    help = "resume a killed training from its last checkpoint, or delete all it left (default: resume)"
    verb.add_argument("--resume", action=BooleanOptionalAction, default=True, help=help)


def run(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.train import train

    train(
        options.variant,
        find_variant(options.variant),
        schedule_of(options),
        options.patches,
        options.out,
        classes=classes_of(options),
        gpus=options.gpus,
        processes=options.processes,
        start=options.start,
        seed=options.seed,
        resume=options.resume,
        track=options.track,
        validate=options.validate,
    )
