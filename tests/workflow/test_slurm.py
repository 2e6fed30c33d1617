"""The workflow on a real SLURM (slurm.py): ``make test-slurm``.

Its two GPUs are simulated: jobs of training and prediction are given one each and compute on the CPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm
import yaml
from programs import BIN, ROOT, TWO, environment_of, program

from tiltbox.training.resume import last_checkpoint

SETTINGS = ("--config", "dataset=tiny", f"variants={list(TWO)}", "gpus=0", "track=false")
HELD = ("--set-resources", "train:gpu=1", "predict:gpu=1")  # what `gpus: 1` would ask for
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1")
QUICK += ("--latency-wait", "5")
PLAIN = ("--slurm-no-account", "--slurm-status-command", "squeue")  # a cluster without accounting
PATIENCE = 240  # seconds in which a job starts, or reaches its next checkpoint
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Path]:
    """A running SLURM; gives the path of its slurm.conf."""
    if problem := slurm.missing():
        pytest.skip(problem)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # a short path, for the socket
        command = [sys.executable, slurm.__file__, folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
            config = keeper.stdout.readline().strip()
            assert config, "SLURM does not start"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SLURM_CONF", config)
                patch.setenv(
                    "PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
                )
                yield Path(config)
            keeper.stdin.close()


def project(copy_project: Callable, folder: Path) -> Path:
    """Trainings of seconds with a checkpoint after each step; ``calls`` gets a line for each stage."""
    copy_project(folder)
    schedule = yaml.safe_load((folder / "configs/schedules/smoke.yaml").read_text())
    del schedule["max_steps"]
    schedule |= {"epochs": 12, "threads": 1, "checkpoint_minutes": 0}
    (folder / "calls").touch()
    (folder / "seconds.yaml").write_text(yaml.safe_dump(schedule))
    dataset = folder / "configs/datasets/tiny.yaml"
    dataset.write_text(dataset.read_text().replace("schedule: smoke", "schedule: seconds.yaml"))
    line = "$SLURM_JOB_ID $1 $2 gpus:$CUDA_VISIBLE_DEVICES"
    program(folder / "bin/tiltbox", f'echo "{line}" >> {folder}/calls\nexec {BIN}/tiltbox "$@"\n')
    # In jobs, Snakemake's plugin removes SLURM_CONF, which clusters do not need that are set up in /etc.
    setting = f"SLURM_CONF={os.environ['SLURM_CONF']}"
    program(folder / "bin/srun", f'{setting} exec {slurm.found("srun")} "$@"\n')
    return folder


def snakemake(at: Path, *arguments: str) -> subprocess.Popen:
    with (at / "output.log").open("w") as output:
        environment = environment_of(at, SLURM_CONF=os.environ["SLURM_CONF"])
        command = [BIN / "snakemake", *arguments, *SETTINGS]
        return subprocess.Popen(command, cwd=at, env=environment, stdout=output, stderr=output)


def jobs() -> list[tuple[str, str, str]]:
    """Number, state and comment of all jobs."""
    lines = slurm.answer("squeue", "--states=all", "--noheader", "--format=%i|%T|%k").splitlines()
    return [tuple(line.split("|", 2)) for line in lines]


def wait_for(condition: Callable[[], object], run: subprocess.Popen, at: Path) -> object:
    """The first true value of a condition, while a program runs."""
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        ended = run.poll() is not None
        assert not ended and time.monotonic() < until, (at / "output.log").read_text()
        time.sleep(0.1)
    return value


def training(at: Path, variant: str, run: subprocess.Popen, besides: tuple[str, ...] = ()) -> str:
    """The number of the job that trains a variant, once it has written a whole checkpoint of its own."""
    work = at / f"results/tiny/{variant}/train/work"
    known: dict[str, Path | None] = {}  # by job: the last checkpoint when it began, perhaps that of another

    def found() -> str | None:
        calls = [line.split() for line in (at / "calls").read_text().splitlines()]
        begun = {number for number, stage, of, *_ in calls if (stage, of) == ("train", variant)}
        for number, state, comment in jobs():
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
    alone = project(copy_project, tmp_path / "alone")
    assert snakemake(alone, "--cores", "2").wait() == 0, (alone / "output.log").read_text()
    at = project(copy_project, tmp_path / "cluster")
    run = snakemake(at, "--workflow-profile", "profiles/slurm", *HELD, *QUICK, *PLAIN)
    try:
        first = training(at, TWO[0], run)
        slurm.answer("scancel", first)
        requeued = training(at, TWO[1], run)
        slurm.answer("scontrol", "requeue", requeued)
        second = training(at, TWO[0], run, besides=(first,))
        slurm.answer("scancel", "--signal=STOP", second)  # SLURM looks at time limits only every 30 seconds
        slurm.answer("scontrol", "update", f"JobId={second}", "EndTime=now")
        assert run.wait(PATIENCE * 2) == 0, (at / "output.log").read_text()
    finally:
        run.terminate()
    states = {number: state for number, state, _ in jobs()}
    assert (states[first], states[second], states[requeued]) == ("CANCELLED", "TIMEOUT", "COMPLETED")
    calls = [line.split() for line in (at / "calls").read_text().splitlines() if " train " in line]
    trained = {name: [number for number, _, of, _ in calls if of == name] for name in TWO}
    assert trained[TWO[0]][:2] == [first, second] and len(set(trained[TWO[0]])) == 3
    assert trained[TWO[1]] == [requeued, requeued]
    assert {gpus for *_, gpus in calls} == {"gpus:0", "gpus:1"}, "one each"
    for name in TWO:
        log = (at / f"logs/tiny/{name}/train.log").read_text()
        assert "resuming from step" in log, log
    assert results(at) == results(alone)


def test_two_tasks_train_together(copy_project, cluster, tmp_path):
    """As on two nodes; the one node of this SLURM runs both tasks. The weights are those of two processes."""
    at = project(copy_project, tmp_path / "tasks")
    name = TWO[0]
    wanted = f"results/tiny/{name}/train/checkpoint.pth"
    together = ("--set-resources", "train:mpi=srun", "train:tasks=2")
    run = snakemake(at, "--workflow-profile", "profiles/slurm", *together, *QUICK, *PLAIN, wanted)
    assert run.wait(PATIENCE * 2) == 0, (at / "output.log").read_text()
    calls = [line.split() for line in (at / "calls").read_text().splitlines() if f" train {name} " in line]
    assert len(calls) == 2 and calls[0][0] == calls[1][0], (at / f"logs/tiny/{name}/train.log").read_text()
    assert "training with 2 tasks of SLURM step" in (at / f"logs/tiny/{name}/train.log").read_text()
    places = ["--patches", "data/tiny/patches/train", "--out", "two", "--dataset", "tiny"]
    options = ["--schedule", "seconds.yaml", "--gpus", "0", "--processes", "2", "--seed", "0"]
    subprocess.run([BIN / "tiltbox", "train", name, *places, *options], cwd=at, check=True)
    assert (at / wanted).read_bytes() == (at / "two/checkpoint.pth").read_bytes()


def results(at: Path) -> dict[str, object]:
    """What must be equal: weights, detections and scores."""
    names = ("train/checkpoint.pth", "predict/detections.parquet", "merge/Task1.zip", "evaluate/metrics.json")
    return {f"{run}/{name}": (at / "results/tiny" / run / name).read_bytes() for run in TWO for name in names}
