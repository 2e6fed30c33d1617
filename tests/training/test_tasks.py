"""Which task of a SLURM step does what, and how they meet."""

from __future__ import annotations

import socket
import threading

import pytest

from tiltbox.errors import SettingsError, TiltboxError
from tiltbox.training import tasks
from tiltbox.training.tasks import Meeting, Task, awaited, leading, task_here, torchrun

FIRST, SECOND = (Task(number, 2, "7.0.0") for number in range(2))


@pytest.fixture
def step(monkeypatch):
    """Sets SLURM's variables as of a step."""

    def set_to(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"SLURM_{name}", value)

    for name in ("STEP_NUM_TASKS", "PROCID", *tasks.STEP):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    return set_to


def test_outside_of_slurm_and_in_steps_of_one_task(step):
    assert task_here() == Task()
    step(STEP_NUM_TASKS="1", PROCID="0", JOB_ID="7", STEP_ID="0")
    assert task_here() == Task()


def test_a_task_of_several(step):
    step(STEP_NUM_TASKS="4", PROCID="3", JOB_ID="7", STEP_ID="2")
    assert task_here() == Task(3, 4, "7.2.0.0")


@pytest.mark.parametrize("change", [{"RESTART_COUNT": "1"}, {"SRUN_COMM_PORT": "40001"}])
def test_a_requeued_job_does_not_meet_at_the_place_of_before(step, change):
    """There may be what the first task said before it was lost. Snakemake's plugin removes RESTART_COUNT."""
    step(STEP_NUM_TASKS="2", PROCID="1", JOB_ID="7", STEP_ID="0", SRUN_COMM_PORT="40000")
    before = task_here()
    step(**change)
    assert task_here().step != before.step


def test_gpus_are_shared_evenly():
    assert (Task().share(3, "--gpus"), FIRST.share(4, "--gpus"), FIRST.share(0, "--gpus")) == (3, 2, 0)
    with pytest.raises(SettingsError, match="--gpus: 3 cannot be shared evenly by 2 tasks; give a multiple"):
        FIRST.share(3, "--gpus")


@pytest.mark.parametrize(("total", "number"), [("2", ""), ("2", "2"), ("many", "0")])
def test_variables_that_contradict_each_other(step, total, number):
    step(STEP_NUM_TASKS=total, PROCID=number)
    with pytest.raises(SettingsError, match=f"SLURM_STEP_NUM_TASKS: is '{total}', but .*; unset it"):
        task_here()


def test_the_others_wait_for_the_first_to_say_where(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "POLL", 0.01)
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(awaited(SECOND, tmp_path)))
    waiting.start()
    with leading(FIRST, tmp_path) as tell:
        assert not heard
        meeting = tell(3, True)
        waiting.join(10)
    assert heard == [meeting]
    assert (meeting.host, meeting.processes, meeting.gpus) == (socket.gethostname(), 3, True)
    assert list(tmp_path.iterdir()) == [], "what they met by is gone"


def test_the_others_hear_of_a_failure(tmp_path):
    with pytest.raises(ValueError), leading(FIRST, tmp_path):
        raise ValueError
    with pytest.raises(TiltboxError, match="task 0 could not begin the training; see its messages"):
        awaited(SECOND, tmp_path)


def test_the_next_attempt_forgets_a_failure(tmp_path):
    with pytest.raises(ValueError), leading(FIRST, tmp_path):
        raise ValueError
    with leading(FIRST, tmp_path) as tell:
        meeting = tell(1, False)
        assert awaited(SECOND, tmp_path) == meeting


def test_what_is_not_ours_stays(tmp_path):
    (tmp_path / "tasks-todo.json").touch()
    with leading(FIRST, tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["tasks-todo.json"]


def test_a_folder_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError), leading(FIRST, tmp_path / "file/out"):
        raise ValueError


def test_however_long_the_first_prepares(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 0)
    monkeypatch.setattr(tasks, "POLL", 0.01)
    heard = []
    with leading(FIRST, tmp_path) as tell:
        waiting = threading.Thread(target=lambda: heard.append(awaited(SECOND, tmp_path)))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        tell(1, False)
        waiting.join(10)
    assert len(heard) == 1


def test_nothing_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 0)
    with pytest.raises(TiltboxError, match=r"task 1 heard nothing from task 0 for 0 minutes; .* all share"):
        awaited(SECOND, tmp_path)


def test_one_task_says_nothing(tmp_path):
    with leading(Task(), tmp_path) as tell:
        assert tell(2, False) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("task", "meeting", "processes", "expected"),
    [
        (Task(), None, 1, []),
        (Task(), None, 2, ["--nproc-per-node=2", "--standalone"]),
        (
            SECOND,
            Meeting("node1", 7000, 1, gpus=False),
            1,
            [
                "--nproc-per-node=1",
                "--nnodes=2",
                "--node-rank=1",
                "--master-addr=node1",
                "--master-port=7000",
            ],
        ),
    ],
)
def test_how_processes_start(task, meeting, processes, expected):
    _, *options = torchrun(task, meeting, processes)
    assert options == ([*["-m", "torch.distributed.run"], *expected] if expected else [])
