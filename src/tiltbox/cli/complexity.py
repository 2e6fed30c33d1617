"""``tiltbox complexity``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tiltbox.cli.options import add_dataset, add_out, add_variant, classes_of
from tiltbox.defaults import INPUT_SIZE

HELP = "count parameters and multiply-adds of a variant"


def add_options(verb: ArgumentParser) -> None:
    add_variant(verb)
    add_out(verb, "FILE.json", "the counts")
    help = "side of the input (default: %(default)s)"
    verb.add_argument("--size", type=int, default=INPUT_SIZE, metavar="PX", help=help)
    add_dataset(verb)


def run(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.complexity import complexity

    counts = complexity(
        options.variant,
        find_variant(options.variant),
        options.out,
        size=options.size,
        num_classes=len(classes_of(options)),
    )
    millions, billions = counts["params"] / 1e6, counts["flops"] / 1e9
    print(f"{options.variant}: {millions:.2f} M parameters, {billions:.2f} G multiply-adds")
