"""``tiltbox status``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

HELP = "show the progress of a Snakemake run in this folder, from another terminal or on a cluster"


def add_options(verb: ArgumentParser) -> None:
    """It takes none."""


def run(options: Namespace) -> None:
    from tiltbox.watching import lines, read_states

    states = read_states()
    for dataset, state in states.items():
        first, *jobs = lines(state)
        print("\n".join([f"{dataset}: {first}", *jobs]))
    if not states:
        print("no run is active in this folder")
