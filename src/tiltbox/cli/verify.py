"""``tiltbox verify``"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tiltbox.cli.options import add_results
from tiltbox.cli.wording import counted

HELP = "check results against their records, from the images to the leaderboard"


def add_options(verb: ArgumentParser) -> None:
    add_results(verb)


def run(options: Namespace) -> None:
    from tiltbox.errors import DataError
    from tiltbox.stages.verify import verify

    found = verify(options.results)
    looked_at = f"{counted(found.files, 'file')} of {counted(found.records, 'record')}"
    for problem in found.problems:
        print(problem)
    if found.problems:
        count = f"{counted(len(found.problems), 'problem')} in {looked_at}"
        raise DataError(options.results, count, "run the stages that made them again, or restore the files")
    print(f"{looked_at}: all unchanged since they were written and read")
    if found.absent:
        print(f"not here, so not checked: {', '.join(found.absent)}")
