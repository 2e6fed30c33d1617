"""How a training process ends when it is told to: after the step in hand, with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tiltbox.processes import TOLD


class ToldToEnd(BaseException):
    """Ends a training whose state is saved; not an Exception, so that nothing handles it as an error.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Notice:
    """Notes the signals that tell a process to end, while it waits for them.

    Attributes:
        number: The first signal that came; 0 before.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Note signals, except those that this process was started to ignore (by ``nohup``, say).

        PyTorch reports the death of a data loading process in the middle of whatever is being computed. The
        state could then not be saved; so only waiting for data reports it, within 5 seconds.
        """
        before = {number: signal.getsignal(number) for number in (*TOLD, signal.SIGCHLD)}
        for number in TOLD:
            if before[number] != signal.SIG_IGN or number == signal.SIGUSR1:
                signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: one that Python does not know

    @contextmanager
    def obeyed_at_once(self) -> Iterator[None]:
        """Let signals cut off what is done meanwhile, as ToldToEnd."""
        self._at_once = True
        try:
            if self.number:
                raise ToldToEnd(self.number)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if self._at_once:
            self._at_once = False  # the next signal must not cut off the cleanup
            raise ToldToEnd(self.number)


def leave_deaths_to_the_loader() -> None:
    """To be called when data loading processes have started, with which PyTorch sets its handler."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
