"""Errors that a user can fix, on their way from a data loading process to the one that trains.

PyTorch makes a copy of an error in a data loading process from one string, a traceback; errors of tiltbox
consist of three.
"""

from __future__ import annotations

from tiltbox.errors import TiltboxError
from tiltbox.training.failure import as_text, from_text


class PassedError(Exception):
    """A TiltboxError as text, which may come at the end of a traceback."""

    @classmethod
    def of(cls, error: TiltboxError) -> PassedError:
        return cls(as_text(error))

    def original(self) -> TiltboxError | None:
        """
        >>> error = TiltboxError("a.png", "is damaged", "replace it")
        >>> copy = PassedError(f"Caught PassedError in DataLoader worker.\\nPassedError: {as_text(error)}")
        >>> print(copy.original())
        a.png: is damaged; replace it
        """
        return from_text(str(self).rpartition(f"{type(self).__name__}: ")[2])
