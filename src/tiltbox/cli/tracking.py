"""``tiltbox tracking``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

HELP = "create the MLflow database if necessary, and print the address of the scores"


def add_options(verb: ArgumentParser) -> None:
    verb.add_argument(
        "experiment", metavar="EXPERIMENT", help="name of the experiment, usually that of the dataset"
    )


def run(options: Namespace) -> None:
    from tiltbox import tracking

    address = tracking.address(tracking.prepare(options.experiment))
    print(f"scores in a browser, while `mlflow ui` runs: {address}")
