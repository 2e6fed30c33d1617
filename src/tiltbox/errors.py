"""What can go wrong for a user, as exceptions that say where, what, and what to do.

The library raises these; only the command line catches them and prints one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Self


class TiltboxError(Exception):
    """An error that a user can fix.

    Args:
        where: The file (with its line, as ``path:7``) or the settings key.
        problem: What is wrong there.
        remedy: What to do about it.

    >>> print(TiltboxError("labels.txt:3", "x2 is 'abc', not a number", "correct the line"))
    labels.txt:3: x2 is 'abc', not a number; correct the line
    """

    def __init__(self, where: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self.where, self.problem, self.remedy = str(where), problem, remedy

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        # Process pools pickle it; without this, with one argument instead of three.
        return type(self), (self.where, self.problem, self.remedy)


class SettingsError(TiltboxError):
    """A key of a settings file or of ``--config`` is unknown, missing or contradicts another."""


class DataError(TiltboxError):
    """An image, label, archive, detection or result file is missing or malformed."""


class CheckpointError(TiltboxError):
    """A checkpoint cannot be read or belongs to another model."""


class TrainingError(TiltboxError):
    """A training cannot go on: it diverged, so that a loss or a weight is not finite, or memory ran out."""


class EndedError(TrainingError):
    """A training was ended, and resumes if it is started again."""


class OutputError(TiltboxError):
    """An output cannot be written: no permission, no space."""


def choice_of(name: str, names: Iterable[str]) -> str:
    """The remedy for a name that is not one of ``names``: the most similar one, or all of them.

    >>> choice_of("Shipp", ["plane", "ship"]), choice_of("x", ["plane", "ship"])
    ("did you mean 'ship'?", 'choose one of plane, ship')
    """
    names = list(names)
    by_small_letters = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_small_letters, n=1)
    if close:
        return f"did you mean '{by_small_letters[close[0]]}'?"
    return f"choose one of {', '.join(names)}"
