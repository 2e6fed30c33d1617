"""Leases of GPUs with fake devices: the locks are real."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tiltbox.devices import leases as module
from tiltbox.devices.leases import gpu_count, leased_gpus


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(module.tempfile, "tempdir", None)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_GPUS_PER_TASK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


def test_no_gpus_hides_all():
    with leased_gpus(0) as held:
        assert held == [] and os.environ["CUDA_VISIBLE_DEVICES"] == "" and gpu_count() == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5,7" and gpu_count() == 3


def test_two_leases_do_not_share():
    with leased_gpus(2) as first:
        assert first == ["3", "5"] and os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
        os.environ["CUDA_VISIBLE_DEVICES"] = "3,5,7"  # as another process sees it
        with leased_gpus(1) as second:
            assert second == ["7"]


def test_no_gpu_behind_a_minus_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,-1,7")
    assert gpu_count() == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpu_count() == 0


def test_slurm_jobs_do_not_wait_for_each_other(monkeypatch):
    """Each sees its own devices, which may have the same numbers; so do the steps of a job."""
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("waits"))
    with ExitStack() as leases:
        for job, step in (("17", "0"), ("17", "1"), ("18", "0")):
            monkeypatch.setenv("SLURM_JOB_ID", job)
            monkeypatch.setenv("SLURM_STEP_ID", step)
            os.environ["CUDA_VISIBLE_DEVICES"] = "3,5,7"
            assert leases.enter_context(leased_gpus(2)) == ["3", "5"]


def test_tasks_with_gpus_of_their_own_do_not_wait_for_each_other(monkeypatch):
    """SLURM may number the GPUs of each from 0. Tasks that see the GPUs of all share them as usual."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "2")
    with ExitStack() as leases:
        for task in ("0", "1"):
            monkeypatch.setenv("SLURM_LOCALID", task)
            os.environ["CUDA_VISIBLE_DEVICES"] = "3,5"
            assert leases.enter_context(leased_gpus(2)) == ["3", "5"]
        monkeypatch.delenv("SLURM_GPUS_PER_TASK")
        os.environ["CUDA_VISIBLE_DEVICES"] = "3,5,7"
        assert leases.enter_context(leased_gpus(2)) == ["3", "5"]
        monkeypatch.setenv("SLURM_LOCALID", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = "3,5,7"
        assert leases.enter_context(leased_gpus(1)) == ["7"]


def test_trainings_within_a_slurm_job_do_not_share(monkeypatch):
    """Like those of ``snakemake --cores all`` in an allocation of more than one GPU."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with leased_gpus(2) as first:
        os.environ["CUDA_VISIBLE_DEVICES"] = "3,5,7"
        with leased_gpus(1) as second:
            assert (first, second) == (["3", "5"], ["7"])


def test_waiting_is_said_once(monkeypatch, caplog):
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            other.release()

    monkeypatch.setattr(module.time, "sleep", nap)
    caplog.set_level(logging.INFO, "tiltbox")
    folder = module.Path(module.tempfile.gettempdir()) / f"tiltbox-gpus-{os.getuid()}"
    folder.mkdir()
    with module.FileLock(folder / "5.lock") as other, leased_gpus(3) as held:
        assert held == ["3", "5", "7"] and len(naps) == 3
    assert [record.getMessage() for record in caplog.records] == ["waiting for 3 free GPUs"]


def test_more_than_there_are():
    with pytest.raises(ValueError, match="4 GPUs asked for, 3 visible"), leased_gpus(4):
        pass


HOLD_TWO = """
from tiltbox.devices.leases import leased_gpus
with leased_gpus(2) as held:
    print(held, flush=True)
    input()
"""


def holder() -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", HOLD_TWO], text=True, **pipes)


def test_a_lease_waits_and_a_killed_process_frees_its_own():
    first = holder()
    assert first.stdout.readline().strip() == "['3', '5']"
    second = holder()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    first.kill()
    first.communicate()
    assert second.stdout.readline().strip() == "['3', '5']"
    second.communicate("\n")
