"""The command line: a module for each verb, which calls the stage of that name and prints its result.

Stages are imported when they run, so ``--help`` is instant.
"""

from __future__ import annotations

from argparse import ArgumentParser
from types import ModuleType
from typing import TYPE_CHECKING

from tiltbox import __version__
from tiltbox.cli import (
    compare,
    complexity,
    download,
    evaluate,
    merge,
    predict,
    report,
    split,
    status,
    track,
    tracking,
    train,
    verify,
    weights,
)

if TYPE_CHECKING:
    from argparse import _SubParsersAction  # argparse has no public name for it

STAGES = download, split, train, predict, merge, evaluate, complexity, report
VERBS = (*STAGES, compare, verify, status, tracking, track, weights)


def parser() -> ArgumentParser:
    top = ArgumentParser(
        prog="tiltbox",
        description="Reproducible training and comparison of oriented object detectors on aerial images.",
        epilog="Errors end with code 1 and one line that says what to do; wrong usage ends with code 2.",
    )
    top.add_argument("--version", action="version", version=f"tiltbox {__version__}")
    verbs = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for module in VERBS:
        _add(verbs, module)
    return top


def _add(verbs: _SubParsersAction[ArgumentParser], module: ModuleType) -> None:
    """A verb with the name of its module, which has ``HELP``, ``add_options`` and ``run``."""
    name = module.__name__.rpartition(".")[2]
    verb = verbs.add_parser(name, help=module.HELP, description=f"{module.HELP[0].upper()}{module.HELP[1:]}.")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.set_defaults(run=module.run)
    module.add_options(verb)
