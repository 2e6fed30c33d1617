from __future__ import annotations

import importlib
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from tiltbox.errors import SettingsError
from tiltbox.processes import cores, map_in_processes, run_program

SLOW = '''
import time
from tiltbox.processes import stop_if_unwanted

def slowly(folder, task):
    """Leaves a file when begun; the first task fails, the others take 20 s unless stopped."""
    (folder / str(task)).touch()
    if task == 0:
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        raise ValueError("the first")
    for _ in range(200):
        stop_if_unwanted()
        time.sleep(0.1)
'''


@pytest.mark.parametrize("workers", [1, 2])
def test_no_tasks(workers):
    assert map_in_processes(operator.neg, [], workers, "nothing") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_results_in_order(workers):
    assert map_in_processes(operator.neg, [3, 1, 2], workers, "three") == [-3, -1, -2]


def test_one_worker_is_this_process():
    assert map_in_processes(lambda _: os.getpid(), [0], 1, "here") == [os.getpid()]


def test_what_is_prepared_is_there(tmp_path):
    prepare = partial(os.chdir, tmp_path)
    assert map_in_processes(os.path.abspath, ["a"] * 2, 2, "there", prepare) == [str(tmp_path / "a")] * 2


def test_an_error_stops_the_others(tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)  # worker processes find it there, too
    slowly = importlib.import_module("slow").slowly
    begun = tmp_path / "begun"
    begun.mkdir()
    before = time.monotonic()
    with pytest.raises(ValueError, match="the first"):
        map_in_processes(partial(slowly, begun), list(range(9)), 2, "slow")
    assert time.monotonic() - before < 15
    assert len(list(begun.iterdir())) < 4
    assert not multiprocessing.active_children()


def test_workers_leave_ctrl_c_to_their_parent():
    assert map_in_processes(signal.getsignal, [signal.SIGINT] * 2, 2, "handlers") == [signal.SIG_IGN] * 2


def test_a_killed_worker():
    with pytest.raises(SettingsError) as error:
        map_in_processes(os._exit, [9, 9], 2, "killed")
    assert str(error.value) == (
        "workers: a process was killed, probably because memory ran out; use fewer --workers"
    )


def test_workers_that_cannot_start(tmp_path):
    """A script that does not guard its own start is run again by each worker."""
    script = tmp_path / "script.py"
    script.write_text(
        "from operator import neg\n"
        "from tiltbox.processes import map_in_processes\n"
        "print(map_in_processes(neg, [1, 2], 2, 'script'))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SettingsError: workers: their processes could not start; see the messages above" in done.stderr
    assert 'under `if __name__ == "__main__":`, or with workers=1' in done.stderr
    assert "memory runs out" not in done.stderr


def test_cores():
    assert 1 <= cores() <= os.cpu_count()


# programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_of_a_program(code):
    assert run_program([sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_variables_on_top_of_our_own(monkeypatch):
    monkeypatch.setenv("OURS", "1")
    check = "import os; raise SystemExit(int(os.environ['OURS'] + os.environ['THEIRS']))"
    assert run_program([sys.executable, "-c", check], {"THEIRS": "2"}) == 12
    assert "THEIRS" not in os.environ


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_can_end_its_own(tmp_path, by):
    """As torchrun ends its workers when it is told to end."""
    mark = tmp_path / "told"
    program = f"trap 'echo yes > {mark}; exit' TERM; echo up; while :; do sleep 0.05; done"
    code = (
        "import signal, sys\n"
        "from tiltbox.__main__ import _ended_in_order\n"
        "from tiltbox.processes import run_program\n"
        "with _ended_in_order():\n"
        f"    run_program(['sh', '-c', {program!r}])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    parent.send_signal(by)
    assert parent.wait(20) == (143 if by == signal.SIGTERM else -by)
    until = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < until, "it was not told"
        time.sleep(0.05)
    if by == signal.SIGTERM:
        assert parent.stdout.read() == ""  # nobody holds the other end any longer
    parent.stdout.close()


def test_a_warning_of_slurm_does_not_end_a_program():
    """It is sent to all processes; the one that started this program passes it on."""
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1); raise SystemExit(3)"
    assert run_program([sys.executable, "-c", code]) == 3
