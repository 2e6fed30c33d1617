"""The workflow on a real SLURM (slurm.py): ``make test-slurm``.

GPUs are simulated: jobs that hold one compute on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import machines
import pytest
import slurm
import yaml
from programs import BIN, ROOT, TWO, call, environment_of, program
from slurm import Cluster

from tiltbox.training.resume import last_checkpoint

SETTINGS = ("--config", "dataset=tiny", f"variants={list(TWO)}", "gpus=0", "track=false")
WEIGHTS = f"results/tiny/{TWO[0]}/train/checkpoint.pth"
HELD = ("--set-resources", "train:gpu=1", "predict:gpu=1")  # what `gpus: 1` would ask for
TOGETHER = ("--set-resources", "train:mpi=srun", "train:tasks=2")
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1")
QUICK += ("--latency-wait", "5")
PLAIN = ("--slurm-no-account", "--slurm-status-command", "squeue")  # a cluster without accounting
SLURM = ("--workflow-profile", "profiles/slurm", *QUICK, *PLAIN)
PATIENCE = 240  # seconds in which a job starts, or reaches its next checkpoint
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node, which is this machine."""
    if problem := slurm.missing():
        pytest.skip(problem)
    with slurm.started() as found:
        yield found


@pytest.fixture(scope="module")
def two_machines() -> Iterator[Cluster]:
    """Two nodes, each of which is a machine of its own."""
    if problem := slurm.missing() or machines.missing():
        pytest.skip(problem)
    with slurm.started("one", "two") as found:
        yield found


def project(copy_project: Callable, folder: Path, cluster: Cluster | None = None) -> Path:
    """Trainings of seconds with a checkpoint after each step; ``calls`` gets a line for each stage."""
    copy_project(folder)
    schedule = yaml.safe_load((folder / "configs/schedules/smoke.yaml").read_text())
    del schedule["max_steps"]
    schedule |= {"epochs": 12, "threads": 1, "checkpoint_minutes": 0}
    (folder / "calls").touch()
    (folder / "seconds.yaml").write_text(yaml.safe_dump(schedule))
    dataset = folder / "configs/datasets/tiny.yaml"
    dataset.write_text(dataset.read_text().replace("schedule: smoke", "schedule: seconds.yaml"))
    line = "$SLURM_JOB_ID $1 $2 gpus:$CUDA_VISIBLE_DEVICES on:$(hostname)"
    program(folder / "bin/tiltbox", f'echo "{line}" >> {folder}/calls\nexec {BIN}/tiltbox "$@"\n')
    # In jobs, Snakemake's plugin removes SLURM_CONF, which clusters do not need that are set up in /etc.
    if cluster:
        program(folder / "bin/srun", f'SLURM_CONF={cluster.config} exec {slurm.found("srun")} "$@"\n')
    return folder


@contextmanager
def snakemake(at: Path, cluster: Cluster, *arguments: str) -> Iterator[subprocess.Popen]:
    """Snakemake on the login node, as long as this lasts."""
    own = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = environment_of(at, SLURM_CONF=str(cluster.config), PYTHONPATH=own)
    command = [*cluster.on, "env", f"--chdir={at}", BIN / "snakemake", *arguments, *SETTINGS]
    with (
        (at / "output.log").open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as run,
    ):
        try:
            yield run
        finally:
            run.terminate()


def require_success(run: subprocess.Popen, at: Path) -> None:
    assert run.wait(PATIENCE * 2) == 0, (at / "output.log").read_text()


def jobs(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Number, state and comment of all jobs."""
    lines = cluster.answer("squeue", "--states=all", "--noheader", "--format=%i|%T|%k").splitlines()
    return [tuple(line.split("|", 2)) for line in lines]


def wait_for(condition: Callable[[], object], run: subprocess.Popen, at: Path) -> object:
    """The first true value of a condition, while a program runs."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        ended = run.poll() is not None
        assert not ended and time.monotonic() < until, (at / "output.log").read_text()
        time.sleep(0.1)
    return value


def training(
    at: Path, cluster: Cluster, variant: str, run: subprocess.Popen, besides: tuple[str, ...] = ()
) -> str:
    """The number of the job that trains a variant, once it has written a whole checkpoint of its own."""
    work = at / f"results/tiny/{variant}/train/work"
    known: dict[str, Path | None] = {}  # by job: the last checkpoint when it began, perhaps that of another

    def found() -> str | None:
        calls = [line.split() for line in (at / "calls").read_text().splitlines()]
        begun = {number for number, stage, of, *_ in calls if (stage, of) == ("train", variant)}
        for number, state, comment in jobs(cluster):
            ours = f"rule_train_wildcards_{variant}" in comment and number in begun.difference(besides)
            if ours and state == "RUNNING":
                last = last_checkpoint(work)
                if last != known.setdefault(number, last):
                    return number
        return None

    return wait_for(found, run, at)


def test_jobs_that_are_cancelled_out_of_time_or_requeued_end_in_the_same_results(
    copy_project, cluster, tmp_path
):
    """Of two trainings at the same time, one is cancelled and later runs out of time, one is requeued."""
    alone = project(copy_project, tmp_path / "alone", cluster)
    with snakemake(alone, cluster, "--cores", "2") as run:
        require_success(run, alone)
    at = project(copy_project, tmp_path / "cluster", cluster)
    with snakemake(at, cluster, *HELD, *SLURM) as run:
        first = training(at, cluster, TWO[0], run)
        cluster.answer("scancel", first)
        requeued = training(at, cluster, TWO[1], run)
        cluster.answer("scontrol", "requeue", requeued)
        second = training(at, cluster, TWO[0], run, besides=(first,))
        cluster.answer("scancel", "--signal=STOP", second)  # SLURM looks at time limits only every 30 seconds
        cluster.answer("scontrol", "update", f"JobId={second}", "EndTime=now")
        require_success(run, at)
    states = {number: state for number, state, _ in jobs(cluster)}
    assert (states[first], states[second], states[requeued]) == ("CANCELLED", "TIMEOUT", "COMPLETED")
    calls = [line.split() for line in (at / "calls").read_text().splitlines() if " train " in line]
    trained = {name: [number for number, _, of, *_ in calls if of == name] for name in TWO}
    assert trained[TWO[0]][:2] == [first, second] and len(set(trained[TWO[0]])) == 3
    assert trained[TWO[1]] == [requeued, requeued]
    assert {gpus for *_, gpus, _ in calls} == {"gpus:0", "gpus:1"}, "one each"
    for name in TWO:
        assert "resuming from step" in log(at, name)
    assert results(at) == results(alone)


@pytest.fixture(scope="module")
def of_two_processes(copy_project, tmp_path_factory) -> bytes:
    """The weights of a training of two processes, without SLURM."""
    at = project(copy_project, tmp_path_factory.mktemp("alone"))
    places = ["--patches", "data/tiny/patches/train", "--out", "two", "--dataset", "tiny"]
    options = ["--schedule", "seconds.yaml", "--gpus", "0", "--processes", "2", "--seed", "0"]
    call("snakemake", "--cores", "2", "data", *SETTINGS, at=at)
    call("tiltbox", "train", TWO[0], *places, *options, at=at)
    return (at / "two/checkpoint.pth").read_bytes()


def test_two_tasks_train_together(copy_project, cluster, of_two_processes, tmp_path):
    """As on two nodes; the one node of this SLURM runs both tasks. The weights are those of two processes."""
    at = project(copy_project, tmp_path / "tasks", cluster)
    with snakemake(at, cluster, *TOGETHER, *SLURM, WEIGHTS) as run:
        require_success(run, at)
    assert (at / WEIGHTS).read_bytes() == of_two_processes
    (one, _), (other, _) = tasks(at)
    assert one == other and "training with 2 tasks of SLURM step" in log(at, TWO[0])


@pytest.mark.parametrize("lost", ["two", "one"])
def test_two_machines_train_together(copy_project, two_machines, of_two_processes, tmp_path, lost):
    """The network of one fails, so that it is lost to SLURM and to the other; later it is back."""
    at = project(copy_project, tmp_path / "machines", two_machines)
    with snakemake(at, two_machines, *TOGETHER, "train:nodes=2", *SLURM, WEIGHTS) as run:
        number = training(at, two_machines, TWO[0], run)
        two_machines.answer("ip", "link", "set", lost, "down")
        try:
            wait_for(lambda: (number, "PENDING") in [job[:2] for job in jobs(two_machines)], run, at)
        finally:
            two_machines.answer("ip", "link", "set", lost, "up")
        require_success(run, at)
    assert (at / WEIGHTS).read_bytes() == of_two_processes
    assert sorted(tasks(at)) == [(number, f"on:{name}") for name in ("one", "one", "two", "two")]
    assert "resuming from step" in log(at, TWO[0])


def tasks(at: Path) -> list[tuple[str, str]]:
    """Job and machine of each task that trained."""
    calls = [line.split() for line in (at / "calls").read_text().splitlines()]
    return [(number, machine) for number, stage, *_, machine in calls if stage == "train"]


def log(at: Path, variant: str) -> str:
    return (at / f"logs/tiny/{variant}/train.log").read_text()


def results(at: Path) -> dict[str, object]:
    """What must be equal: weights, detections and scores."""
    names = ("train/checkpoint.pth", "predict/detections.parquet", "merge/Task1.zip", "evaluate/metrics.json")
    return {f"{run}/{name}": (at / "results/tiny" / run / name).read_bytes() for run in TWO for name in names}
