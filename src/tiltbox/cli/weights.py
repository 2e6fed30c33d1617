"""``tiltbox weights``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tiltbox.cli.options import add_dataset, add_schedule, add_variant, schedule_of

HELP = "download the weights that a training starts from, for machines without internet access"


def add_options(verb: ArgumentParser) -> None:
    add_variant(verb)
    add_schedule(verb)
    add_dataset(verb, schedule=True)


def run(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.weights import weights, weights_at_hand

    variant, schedule = find_variant(options.variant), schedule_of(options)
    if schedule is None:
        print(weights_at_hand(variant) or "schedule auto: trainings on few patches start from random weights")
    else:
        print(weights(variant, schedule) or "the training starts from random weights")
