"""How the command ends; its output and exit codes are tested in cli/."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, time
from tiltbox.__main__ import _ended_in_order

def told():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)

class InADestructor:
    def __del__(self):
        told()

try:
    with _ended_in_order():
        {way}
        time.sleep(20)
finally:
    print("cleaned up", flush=True)
"""


def ended(way: str) -> tuple[int, str]:
    """Exit code and output of a process that is told to end in some way."""
    code = CODE.format(way=way)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "way",
    [
        "told()",
        "InADestructor()",  # Python drops exceptions there
        "os.register_at_fork(after_in_parent=told); os.fork() or os._exit(0)",  # and there
    ],
)
def test_sigterm(way):
    assert ended(way) == (128 + signal.SIGTERM, "cleaned up\n")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_other_signals(name):
    """A closed terminal, and SLURM's warning before the end of a job."""
    number = signal.Signals[name]
    assert ended(f"os.kill(os.getpid(), {int(number)})") == (128 + number, "cleaned up\n")


def test_a_signal_that_was_to_be_ignored():
    """By ``nohup``, say."""
    code = (
        "import os, signal\n"
        "from tiltbox.__main__ import _ended_in_order\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with _ended_in_order(): os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sigterm_twice():
    """This happens if a group of processes is ended."""
    way = "try: told()\n        finally: told(); print('tidied')"
    assert ended(way) == (128 + signal.SIGTERM, "tidied\ncleaned up\n")


def test_other_dropped_errors_are_shown():
    code = (
        "from tiltbox.__main__ import _ended_in_order\n"
        "class Bad:\n    def __del__(self): raise ValueError('seen')\n"
        "with _ended_in_order():\n    Bad()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ValueError: seen" in done.stderr


def test_the_handler_is_for_the_command_alone():
    """A caller of a stage from Python has its own handlers."""
    import tiltbox.stages.split  # noqa: F401
    from tiltbox.__main__ import _ended_in_order

    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with _ended_in_order():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_closed_streams(tmp_path):
    """The shell's ``>&-``, and a reader that is gone."""
    for words in ("--help >&-", "complexity --help | true", "report nowhere --out out 2>&-"):
        line = f"{sys.executable} -m tiltbox {words}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr and b"not expected" not in done.stderr
