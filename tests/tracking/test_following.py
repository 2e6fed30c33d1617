"""A training reported to MLflow: to a database, and to real servers, slow, late, dead or restarted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tiltbox import tracking
from tiltbox.errors import SettingsError, TrainingError
from tiltbox.tracking import following, store
from tiltbox.tracking.journal import read_journal

ROOT = Path(__file__).resolve().parents[2]


def logged(experiment: str = "mini") -> list:
    mlflow = tracking.client()
    return mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id])


def epochs(run_id: str) -> list[int]:
    return sorted(point.step for point in tracking.client().get_metric_history(run_id, "train/loss"))


def until(true, what: str) -> None:
    end = time.monotonic() + 100
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_a_training_that_is_not_to_be_logged(here, run):
    with tracking.followed(run.train, run.train / "work", None, None, None, {}, resumes=False):
        pass
    assert not run.train.exists() and [each.name for each in here.iterdir()] == ["mlflow.db"]


def test_epochs_are_seen_while_a_training_runs_and_its_end_after(here, run):
    with run.training() as write:
        write(1)
        until(lambda: tracking.client().get_experiment_by_name("mini") and logged(), "no run")
        until(lambda: epochs(logged()[0].info.run_id) == [1], "no epoch")
        assert logged()[0].info.status == "RUNNING"
        write(2)
    (found,) = logged()
    assert (found.info.status, epochs(found.info.run_id)) == ("FINISHED", [1, 2])
    assert found.data.metrics["params_M"] == 5.0
    assert found.data.metrics["system/cpu_utilization_percentage"] >= 0
    assert read_journal(run.train).state == "FINISHED"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (
            TrainingError("step 3", "the loss is nan", "lower base_lr"),
            "FAILED",
            "step 3: the loss is nan; lower",
        ),
        (KeyboardInterrupt(), "KILLED", "was told to end"),
        (SystemExit(143), "KILLED", "was told to end"),
    ],
)
def test_a_training_that_ends_before_its_end_and_resumes(here, run, error, state, reason):
    with pytest.raises(type(error)), run.training() as write:
        write(1)
        raise error
    (found,) = logged()
    assert found.info.status == state and found.data.tags["failure"].startswith(reason)
    with run.training(resumes=True) as write:
        until(lambda: logged()[0].info.status == "RUNNING", "does not run again")
        write(2)
    (found,) = logged()
    assert (found.info.status, epochs(found.info.run_id)) == ("FINISHED", [1, 2])
    assert "failure" not in found.data.tags


KILLED = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import Run
from tiltbox.tracking import following
following.LOOK_EVERY = 0.1
with Run(Path("results/mini/yoloms-xs-current")).training() as write:
    write(1)
    time.sleep(120)
"""


def killed(here: Path) -> None:
    """A training that is killed with its first epoch logged."""
    code = KILLED.format(tests=str(Path(__file__).parent))
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: tracking.client().get_experiment_by_name("mini") and logged(), "no run")
        until(lambda: epochs(logged()[0].info.run_id) == [1], "no epoch")
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()


def test_a_training_that_was_killed_says_so_when_asked_and_when_another_takes_its_place(here, run):
    killed(here)
    assert [each.info.status for each in logged()] == ["RUNNING"]  # nothing could report the end
    assert tracking.catch_up_all(Path("results/mini")) == {"results/mini/yoloms-xs-current": "KILLED"}
    assert logged()[0].data.tags["failure"].startswith("was killed, perhaps because")
    with pytest.raises(SystemExit), run.training(resumes=True) as write:  # it is resumed, and ends again
        write(2)
        raise SystemExit(143)
    with run.training(mark="hash2") as write:
        write(1)
    states = {each.data.tags["config_hash"]: each.info.status for each in logged()}
    assert states == {"hash1": "KILLED", "hash2": "FINISHED"}


def test_another_training_puts_right_what_a_killed_one_left(here, run):
    killed(here)
    with run.training(mark="hash2"):
        pass
    states = {each.data.tags["config_hash"]: each.info.status for each in logged()}
    assert states == {"hash1": "KILLED", "hash2": "FINISHED"}


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import Run
from tiltbox import tracking
seed = f"seed-{{sys.argv[1]}}"
run = Run(Path("results/mini/yoloms-xs-current", seed), f"mini/yoloms-xs-current/{{seed}}")
tracking.require_experiment(run.track)
with run.training() as write:
    for epoch in range(1, 21):
        write(epoch)
"""


def six_trainings(python: Path) -> None:
    """At the same time, and MLflow gets every epoch of all of them."""
    Path("configs").symlink_to(ROOT / "configs")
    writer = Path("writer.py")
    writer.write_text(WRITER.format(tests=str(Path(__file__).parent)))
    children = [
        subprocess.Popen([python, writer, str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in range(1, 7)
    ]
    ends = [(child.communicate()[1], child.returncode) for child in children]
    assert [end for _, end in ends] == [0] * 6, ends
    found = [each for each in logged() if each.data.tags["variant"].startswith("yoloms-xs-current/seed-")]
    assert sorted(each.data.tags["seed"] for each in found) == ["0"] * 6  # the schedule's own
    assert {each.data.tags["variant"][-1] for each in found} == set("123456")
    for each in found:
        assert (each.info.status, epochs(each.info.run_id)) == ("FINISHED", [*range(1, 21)]), ends


@pytest.fixture
def folder_of_server(database, tmp_path) -> Path:
    """With an empty database."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(database, folder)
    return folder


def test_six_trainings_at_once_on_a_fresh_folder(tmp_path, monkeypatch, preload):
    """All of them failed when each created the database itself, and it stayed broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    six_trainings(preload("python") / "python")


def test_a_server_that_starts_late_is_killed_and_starts_again(
    run, folder_of_server, monkeypatch, start_mlflow, unused, preload, caplog
):
    """The training continues meanwhile; MLflow has all of it in the end."""
    caplog.set_level("INFO", "tiltbox")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused}")
    with run.training() as write:
        write(1)
        until(lambda: "does not answer" in caplog.text, "nothing was said")
        server = start_mlflow(folder_of_server, unused)
        until(lambda: "answers again" in caplog.text, "not told")
        (found,) = logged()
        assert epochs(found.info.run_id) == [1]
        six_trainings(preload("python") / "python")
        server.kill()
        write(2)
        until(lambda: caplog.text.count("does not answer") == 2, "nothing was said")
        write(3)
        server = start_mlflow(folder_of_server, unused)
        until(lambda: caplog.text.count("answers again") == 2, "not told")
    found = tracking.client().get_run(found.info.run_id)
    assert (found.info.status, epochs(found.info.run_id)) == ("FINISHED", [1, 2, 3])
    assert tracking.client().list_artifacts(found.info.run_id)
    server.kill()


class Slow(socketserver.ThreadingTCPServer):
    """A proxy of a server: requests wait until ``answer`` is set."""

    daemon_threads = True

    def __init__(self, server: int) -> None:
        self.server, self.asked, self.answer = server, threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), Waiting)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Waiting(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.asked.set()
        self.server.answer.wait()
        with socket.create_connection(("127.0.0.1", self.server.server)) as behind:
            threading.Thread(target=passed_on, args=(behind, self.request), daemon=True).start()
            passed_on(self.request, behind)


def passed_on(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)


def test_a_training_does_not_wait_for_a_slow_server(run, folder_of_server, monkeypatch, start_mlflow, caplog):
    """The server does not answer until the last epoch; then MLflow gets all epochs."""
    with Slow(start_mlflow(folder_of_server).port) as slow:
        threading.Thread(target=slow.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", slow.address)
        with run.training() as write:
            write(1)
            assert slow.asked.wait(60)
            write(2)
            write(3)
            slow.answer.set()
        (found,) = logged()
        assert (found.info.status, epochs(found.info.run_id)) == ("FINISHED", [1, 2, 3])
        slow.shutdown()
    assert caplog.messages == []


@pytest.mark.parametrize("address", ["silent", "closed"])
def test_a_server_that_never_answers_stops_nothing(run, monkeypatch, request, caplog, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue(address))
    for module, name in ((following, "LAST_WORD"), (store, "FIRST_WORD")):
        monkeypatch.setattr(module, name, 0.5)
    tracking.require_experiment("mini/yoloms-xs-current")
    with run.training() as write:
        write(1)
    assert "MLflow did not accept the start of this training" in caplog.text
    assert "`tiltbox track" in caplog.messages[-1]
    journal = read_journal(run.train)
    assert (journal.state, journal.track) == ("FINISHED", "mini/yoloms-xs-current")


def test_a_journal_of_another_version_does_not_stop_a_training(here, run, caplog):
    run.train.mkdir(parents=True)
    (run.train / ".mlflow.json").write_text('{"track": "mini/yoloms-xs-current"}')
    with run.training() as write:
        write(1)
    assert "is missing" in caplog.messages[0] and caplog.messages[0].endswith("; it is replaced")
    assert read_journal(run.train).state == "FINISHED"


def test_a_deleted_experiment_is_an_error_before_a_training(here):
    tracking.client().delete_experiment(tracking.prepare("mini"))
    with pytest.raises(SettingsError, match="was deleted in MLflow"):
        tracking.require_experiment("mini/yoloms-xs-current")
