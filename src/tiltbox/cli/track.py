"""``tiltbox track``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tiltbox.cli.options import add_results

HELP = "bring MLflow up to date with results, for example after a server was down; safe to repeat"


def add_options(verb: ArgumentParser) -> None:
    add_results(verb)
    help = "experiment to log to (default: the one each training was started with, else the dataset's)"
    verb.add_argument("--experiment", metavar="NAME", help=help)


def run(options: Namespace) -> None:
    from tiltbox import tracking

    for name, state in tracking.catch_up_all(options.results, options.experiment).items():
        print(f"{state:<8}  {name}")
