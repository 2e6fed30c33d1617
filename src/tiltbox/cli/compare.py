"""``tiltbox compare``"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from tiltbox.cli.options import add_data_file, add_dataset, add_labels, at_least, classes_of
from tiltbox.defaults import RESAMPLES, RESAMPLING_SEED

HELP = "say which of two detectors is better, and whether the difference could be chance"


def add_options(verb: ArgumentParser) -> None:
    results = "results as evaluate takes them; with more than one seed, one for each, joined by commas"
    verb.add_argument("first", type=_runs, metavar="A", help=results)
    verb.add_argument("second", type=_runs, metavar="B", help="the same for the other detector")
    add_labels(verb)
    verb.add_argument("--out", type=Path, metavar="FILE.json", help="write the comparison, as fractions")
    help = "draws of images for the 95 %% intervals (default: %(default)s)"
    verb.add_argument("--resamples", type=at_least(100), default=RESAMPLES, metavar="N", help=help)
    help = "seed of the draws (default: %(default)s)"
    verb.add_argument("--seed", type=at_least(0), default=RESAMPLING_SEED, metavar="N", help=help)
    add_data_file(verb)
    add_dataset(verb)


def _runs(text: str) -> list[Path]:
    """The paths between commas, or the whole text if a path has that name."""
    if text and Path(text).exists():
        return [Path(text)]
    parts = text.split(",")
    if not all(parts):
        raise ArgumentTypeError(f"'{text}' has nothing between two commas")
    return list(map(Path, parts))


def run(options: Namespace) -> None:
    from tiltbox.stages.compare import compare, comparison_table

    found = compare(
        options.first,
        options.second,
        options.labels,
        options.out,
        resamples=options.resamples,
        seed=options.seed,
        classes=classes_of(options),
        data_file=options.data_file,
    )
    print(comparison_table(found))
