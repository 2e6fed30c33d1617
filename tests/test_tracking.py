from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tiltbox import tracking
from tiltbox.errors import SettingsError
from tiltbox.settings.schedules import find_schedule
from tiltbox.settings.variants import find_variant

XS, SMOKE = find_variant("yoloms-xs-current"), find_schedule("smoke")
TRACK = "mini/yoloms-xs-current"
COUNTS = {"params": 5_090_000, "flops": 22_020_000_000}
EPOCHS = [
    {"epoch": 1.0, "step": 2.0, "lr": 1e-3, "loss": 3.5, "loss_cls": 1.5, "loss_bbox": 2.0, "seconds": 1.0},
    {"epoch": 2.0, "step": 4.0, "lr": 1e-4, "loss": 2.5, "loss_cls": 1.0, "loss_bbox": 1.5, "seconds": 1.0},
]


def scores(**classes: float | None) -> dict:
    rows = {name: {"AP50": value} for name, value in classes.items()}
    return {"mAP": 0.25, "AP50": 0.5, "AP75": 0.125, "classes": rows}


@pytest.fixture(scope="module")
def created(tmp_path_factory) -> Path:
    """A folder with a database: to create one takes seconds."""
    folder = tmp_path_factory.mktemp("created")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.prepare("empty")
    return folder


@pytest.fixture
def here(created, tmp_path, monkeypatch) -> Path:
    (tmp_path / "mlflow.db").write_bytes((created / "mlflow.db").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def runs(experiment: str = "mini") -> list:
    client = tracking._client()
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_nothing_was_logged(here):
    assert runs("empty") == []


def test_prepare_again_gives_the_same_experiment(here):
    assert tracking.prepare("mini") == tracking.prepare("mini") != tracking.prepare("dota")


def test_one_run_holds_all_stages_of_a_variant(here):
    tracking.log_complexity(TRACK, COUNTS)  # whichever stage comes first
    run_id = tracking.begin_training(TRACK, XS, SMOKE, "hash-1")
    for row in EPOCHS:
        tracking.log_epoch(run_id, row)
    tracking.log_evaluation(TRACK, scores(ship=0.75, plane=None), [])
    (run,) = runs()
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "yoloms-xs-current", "FINISHED")
    assert run.data.metrics["AP50/ship"] == 0.75
    assert "AP50/plane" not in run.data.metrics  # no objects: not 0
    assert {key: run.data.metrics[key] for key in ("mAP", "AP50", "AP75", "params_M", "flops_G")} == {
        "mAP": 0.25,
        "AP50": 0.5,
        "AP75": 0.125,
        "params_M": 5.09,
        "flops_G": 22.02,
    }
    assert run.data.tags["variant"] == "yoloms-xs-current"
    assert (run.data.tags["size"], run.data.tags["generation"]) == ("xs", "current")
    assert (run.data.tags["config_hash"], run.data.tags["git_commit"]) == ("hash-1", "unknown")
    assert run.data.params["width"] == "0.42"
    assert run.data.params["schedule.learning_rate"] == "0.001"
    assert run.data.params["schedule.epochs"] == '{"xs": 1, "s": 1, "l": 1}'


def test_curves_have_a_point_per_epoch(here):
    run_id = tracking.begin_training(TRACK, XS, SMOKE, "hash-1")
    for row in EPOCHS:
        tracking.log_epoch(run_id, row)
    history = tracking._client().get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.5), (2, 2.5)]
    assert set(runs()[0].data.metrics) == {f"train/{key}" for key in EPOCHS[0]} - {
        "train/epoch",
        "train/step",
    }


def test_a_diverged_loss_is_logged(here):
    run_id = tracking.begin_training(TRACK, XS, SMOKE, "hash-1")
    tracking.log_epoch(run_id, EPOCHS[0] | {"loss": float("nan"), "loss_cls": float("inf")})
    assert runs()[0].data.metrics["train/lr"] == 1e-3


def test_a_resumed_training_goes_on_in_its_run_whatever_its_parameters(here):
    first = tracking.begin_training(TRACK, XS, SMOKE, "hash-1")
    other = SMOKE.model_copy(update={"seed": 7})  # MLflow raises where a parameter changes
    assert tracking.begin_training(TRACK, XS, other, "hash-1") == first
    assert runs()[0].data.params["schedule.seed"] == "0"


def test_other_settings_begin_a_new_run_and_later_stages_follow(here):
    first = tracking.begin_training(TRACK, XS, SMOKE, "hash-1")
    second = tracking.begin_training(TRACK, XS, SMOKE.model_copy(update={"seed": 7}), "hash-2")
    tracking.log_evaluation(TRACK, scores(), [])
    found = {run.info.run_id: run for run in runs()}
    assert first != second and set(found) == {first, second}
    assert "AP50" not in found[first].data.metrics and found[second].data.metrics["AP50"] == 0.5
    assert found[second].data.params["schedule.seed"] == "7"


def test_variants_and_datasets_have_runs_of_their_own(here):
    tracks = [TRACK, "mini/yoloms-xs-previous", "dota/yoloms-xs-current"]
    assert len({tracking.begin_training(track, XS, SMOKE, "hash-1") for track in tracks}) == 3
    assert (len(runs("mini")), len(runs("dota"))) == (2, 1)


def test_files_lie_where_the_server_looks_and_no_path_of_the_machine_is_kept(here):
    (here / "train").mkdir()
    for name in ("config.py", "history.csv", "train.json"):
        (here / "train" / name).write_text(name)
    tracking.log_training(TRACK, here / "train", COUNTS)
    (run,) = runs()
    assert run.info.artifact_uri == f"mlflow-artifacts:/mini/{run.info.run_id}/artifacts"
    kept = here / "mlartifacts/mini" / run.info.run_id / "artifacts"
    assert sorted(path.name for path in kept.iterdir()) == ["config.py", "history.csv", "train.json"]
    assert (kept / "train.json").read_text() == "train.json"
    assert run.data.metrics["params_M"] == 5.09
    assert str(here).encode() not in (here / "mlflow.db").read_bytes()


def test_another_database(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/elsewhere.db")
    (here / "mlflow.db").rename(here / "elsewhere.db")
    (here / "table.csv").write_text("a,b\n")
    tracking.log_evaluation(TRACK, scores(ship=0.5), [here / "table.csv"])
    (run,) = runs()
    names = [file.path for file in tracking._client().list_artifacts(run.info.run_id)]
    assert (names, (here / "mlflow.db").exists()) == (["table.csv"], False)


@pytest.mark.parametrize("name", ["car(parked)", "größe", "a@b,c", "plain-name"])
def test_class_names_of_all_sorts(here, name):
    tracking.log_evaluation(TRACK, scores(**{name: 0.5}), [])
    assert len(runs()[0].data.metrics) == 4


@pytest.mark.parametrize("track", ["", "mini", "mini/", "/yoloms", "mini/it's"])
def test_a_target_that_is_none(here, track):
    with pytest.raises(SettingsError, match="names no run; give EXPERIMENT/RUN"):
        tracking.log_complexity(track, COUNTS)


def test_a_deleted_experiment(here):
    number = tracking.prepare("mini")
    tracking._client().delete_experiment(number)
    with pytest.raises(SettingsError, match=f"was deleted in MLflow; .*--experiment-id {number}"):
        tracking.log_complexity(TRACK, COUNTS)


def test_first_stages_of_a_variant_at_once_share_a_run(here, monkeypatch):
    from mlflow import MlflowClient

    search = MlflowClient.search_runs

    def slow_search(*args, **kwargs):
        found = search(*args, **kwargs)
        time.sleep(0.2)  # time enough for the others to find nothing, too
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(MlflowClient, "search_runs", slow_search)
        list(pool.map(lambda _: tracking.log_complexity(TRACK, COUNTS), range(3)))
    assert len(runs()) == 1


def test_six_processes_on_a_fresh_folder(tmp_path, monkeypatch):
    """All of them failed where each created the database for itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = "from tiltbox.tracking import prepare; print(prepare('mini'))"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    ends = [(child.communicate(), child.returncode) for child in children]
    assert [code for _, code in ends] == [0] * 6, ends
    assert len({out for (out, _), _ in ends}) == 1
    assert len(runs()) == 0


def test_git_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking.git_commit() == "unknown"
    for words in (
        "init -q",
        "-c user.name=a -c user.email=a@b.c commit -q --no-gpg-sign --allow-empty -m first",
    ):
        subprocess.run(["git", *words.split()], check=True)
    assert len(tracking.git_commit()) >= 7 and int(tracking.git_commit(), 16)


def test_without_git(monkeypatch):
    monkeypatch.setitem(os.environ, "PATH", "")
    assert tracking.git_commit() == "unknown"
