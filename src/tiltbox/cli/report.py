"""``tiltbox report``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

HELP = "compare all variants in one table"


def add_options(verb: ArgumentParser) -> None:
    verb.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder with one folder per variant")
    help = "folder for leaderboard.md, .csv and .html, and detectors/ (default: only print the table)"
    verb.add_argument("--out", type=Path, metavar="DIR", help=help)


def run(options: Namespace) -> None:
    from tiltbox.stages.report import report

    print(report(options.results, options.out))
