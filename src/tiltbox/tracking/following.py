"""Tells MLflow about a training while it runs, from a thread of the process that waits for its end.

The training itself writes files and knows nothing of MLflow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tiltbox.model.variant import Variant
from tiltbox.settings.schedules import Schedule
from tiltbox.tracking.catching_up import catch_up, log_progress
from tiltbox.tracking.journal import begin_journal, end_journal, usage_file
from tiltbox.tracking.store import in_a_line
from tiltbox.tracking.usage import Usage

LOOK_EVERY = 2.0  # seconds between looks for a new epoch
TELL_EVERY = 120.0  # seconds after which MLflow gets the machine's usage, even without a new epoch
TRY_AGAIN = 30.0  # seconds after which a server that did not answer is asked again
LAST_TRIES = 3  # at the end
# Seconds that the end of a training waits for MLflow; less if it was told to end and may soon be killed.
LAST_WORD, SHORT_WORD = 60.0, 10.0

log = logging.getLogger("tiltbox")


@contextmanager
def followed(
    out: Path,
    work: Path,
    track: str | None,
    variant: Variant,
    schedule: Schedule,
    facts: Mapping[str, Any],
    *,
    resumes: bool,
) -> Iterator[None]:
    """Tell MLflow about the training in ``out`` that the block does: that it runs, its epochs, how it ended.

    Nothing here raises or waits for MLflow, except at the end, for a minute at most. What MLflow did not
    accept, or what the end of this process cut off, can be logged later (:mod:`.catching_up`).

    Args:
        out, work: Where results go, and where history.csv grows.
        track: ``experiment/run``; None tells MLflow nothing.
    """
    if track is None:
        yield
        return
    begin_journal(out, track, variant, schedule, facts, resumes=resumes)
    follower = _Follower(out, work)
    follower.start()
    patience = LAST_WORD
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        patience = LAST_WORD if failed else SHORT_WORD
        end_journal(out, "FAILED" if failed else "KILLED", in_a_line(error) if failed else "was told to end")
        raise
    else:
        end_journal(out, "FINISHED", None)
    finally:
        follower.finish(patience)


class _Follower(threading.Thread):
    def __init__(self, out: Path, work: Path) -> None:
        super().__init__(daemon=True)  # a server that does not answer must not keep the process from ending
        self._out, self._history = out, work / "history.csv"
        self._over, self._given_up = threading.Event(), False
        self._run: str | None = None
        self._said: str | None = None

    def run(self) -> None:
        usage, pause, told, waited = None, 0.0, None, 0.0
        with suppress(Exception):
            usage = Usage(usage_file(self._out))
        while not self._over.wait(LOOK_EVERY):
            waited += LOOK_EVERY
            if usage:
                with suppress(Exception):  # the sensors' own, too
                    usage.sample()
            if waited >= pause and (told != (seen := self._size()) or waited >= TELL_EVERY):
                done = self._tell(self._tell_progress)
                pause, waited = (0.0 if done else TRY_AGAIN), 0.0
                told = seen if done else told
        for _ in range(LAST_TRIES):
            if self._given_up or self._tell(lambda: catch_up(self._out)):
                break
            time.sleep(1)

    def finish(self, patience: float) -> None:
        """Tell MLflow about the end, within this many seconds."""
        self._over.set()
        self.join(patience)
        self._given_up = True
        if self.is_alive():
            self._warn("no answer")
        if self._said:
            log.warning(
                "MLflow does not have all of this training yet: `tiltbox track %s` updates it",
                self._out.parent,
            )

    def _tell(self, what: Callable[[], object]) -> bool:
        try:
            what()
        except Exception as error:
            self._run = None  # the run may be gone, with the server's memory
            self._warn(in_a_line(error))
            return False
        if self._said:
            log.info("MLflow answers again")
        self._said = None
        return True

    def _tell_progress(self) -> None:
        if self._run is None:
            self._run = catch_up(self._out)
        else:
            log_progress(self._run, self._out, self._history.parent)

    def _warn(self, why: str) -> None:
        """Warn once, until MLflow answers again."""
        if self._said is None:
            log.warning("MLflow does not answer and will be updated later; the training continues: %s", why)
        self._said = why

    def _size(self) -> int:
        return self._history.stat().st_size if self._history.exists() else 0
