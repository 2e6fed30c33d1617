"""Signals that tell a training to end."""

from __future__ import annotations

import os
import signal

import pytest

from tiltbox.processes import TOLD
from tiltbox.training.ending import Notice, ToldToEnd, leave_deaths_to_the_loader


@pytest.mark.parametrize("number", TOLD)
def test_a_signal_is_noted_and_ends_nothing(number):
    notice = Notice()
    with notice.awaited():
        assert notice.number == 0
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # from a scheduler that sends a second one
    assert notice.number == number


def test_handlers_are_as_before_in_the_end():
    numbers = (*TOLD, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(ToldToEnd), Notice().awaited():
        leave_deaths_to_the_loader()
        raise ToldToEnd(signal.SIGTERM)
    assert [signal.getsignal(number) for number in numbers] == before


def test_what_was_to_be_ignored_is_ignored():
    """As after ``nohup``; but torchrun is made to ignore SIGUSR1, which its workers must not ignore."""
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGUSR1)]
    notice = Notice()
    try:
        with notice.awaited():
            os.kill(os.getpid(), signal.SIGHUP)
            assert notice.number == 0
            os.kill(os.getpid(), signal.SIGUSR1)
            assert notice.number == signal.SIGUSR1
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_what_may_be_cut_off_is_cut_off_once():
    notice, cleaned = Notice(), False
    with notice.awaited():
        with pytest.raises(ToldToEnd) as end, notice.obeyed_at_once():
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
                pytest.fail("it was not cut off")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned = True
        assert cleaned and end.value.number == signal.SIGUSR1
        with pytest.raises(ToldToEnd), notice.obeyed_at_once():
            pytest.fail("it was told before")


def test_nothing_that_handles_errors_stops_it():
    assert not issubclass(ToldToEnd, Exception)
