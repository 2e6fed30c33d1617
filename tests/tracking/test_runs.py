from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from math import isnan
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tiltbox import tracking
from tiltbox.errors import SettingsError
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import find_schedule

XS, SMOKE = find_variant("yoloms-xs-current"), find_schedule("smoke")
TRACK = "mini/yoloms-xs-current"
COUNTS = {"params": 5_090_000, "flops": 22_020_000_000}
FACTS = {
    "config_hash": "hash-1",
    "git_commit": "abc1234-dirty",
    "pretrained": None,
    "device": "CPU",
    "data": {"patch_size": 128, "rates": [1.0, 0.5], "patches": 18, "classes": 15},
    "versions": {"tiltbox": "0.1.0", "torch": "2.13.0"},
}
HISTORY = [
    "epoch,step,lr,loss,loss_cls,loss_bbox,seconds",
    "1,2,1e-3,3.5,1.5,2.0,1.0",
    "2,4,1e-4,2.5,1.0,1.5,1.0",
]


def begin(
    track: str = TRACK, mark: str = "hash-1", *, seed: int = 0, resumes: bool = False, **facts: object
) -> str:
    schedule = SMOKE.model_copy(update={"seed": seed})
    return tracking.begin_training(
        track, XS, schedule, FACTS | {"config_hash": mark} | facts, resumes=resumes
    )


def log_epochs(run_id: str, *rows: str) -> None:
    Path("history.csv").write_text("\n".join(HISTORY[:1] + list(rows or HISTORY[1:])) + "\n")
    tracking.log_history(run_id, Path("history.csv"))


def finish(run_id: str) -> None:
    Path("train").mkdir(exist_ok=True)
    for name in ("config.py", "train.json"):
        Path("train", name).write_text(name)
    Path("train/history.csv").write_text("\n".join(HISTORY) + "\n")
    tracking.log_training(run_id, Path("train"), COUNTS)


def curve(run_id: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in tracking.client().get_metric_history(run_id, "train/loss")]


def scores(**classes: float | None) -> dict:
    """Figures of classes by name, the angle error in degrees 40 times the AP."""
    rows = {name: dict.fromkeys(tracking.SCORES, value) for name, value in classes.items()}
    for row in rows.values():
        median = row["AP50"] and 40 * row["AP50"]
        row["angle_error"] = {"median": median, "p90": median and 2 * median, "objects": 3}
    angle = {"median": 4.5, "p90": 20.0, "objects": 3}
    return {"mAP": 0.25, "AP50": 0.5, "AP75": 0.125, "angle_error": angle, "classes": rows}


def runs(experiment: str = "mini") -> list:
    client = tracking.client()
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_nothing_was_logged(here):
    assert runs("empty") == []


def test_prepare_again_gives_the_same_experiment(here):
    assert tracking.prepare("mini") == tracking.prepare("mini") != tracking.prepare("dota")


def test_one_run_holds_all_stages_of_a_variant(here):
    run_id = begin()
    finish(run_id)
    tracking.log_evaluation(TRACK, scores(ship=0.75, plane=None), [])
    (run,) = runs()
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "yoloms-xs-current", "FINISHED")
    assert {key: run.data.metrics[f"{key}/ship"] for key in ("AP50", "AP75", "mAP")} == {
        "AP50": 0.75,
        "AP75": 0.75,
        "mAP": 0.75,
    }
    assert {key: run.data.metrics[f"angle_error_{key}/ship"] for key in ("median", "p90")} == {
        "median": 30,
        "p90": 60,
    }
    assert not any(key.endswith("/plane") for key in run.data.metrics)  # no objects: not 0
    figures = ("mAP", "AP50", "AP75", "angle_error_median", "angle_error_p90", "params_M", "flops_G")
    assert {key: run.data.metrics[key] for key in figures} == {
        "mAP": 0.25,
        "AP50": 0.5,
        "AP75": 0.125,
        "angle_error_median": 4.5,
        "angle_error_p90": 20.0,
        "params_M": 5.09,
        "flops_G": 22.02,
    }
    assert run.data.tags["variant"] == "yoloms-xs-current"
    assert (run.data.tags["size"], run.data.tags["series"]) == ("xs", "YOLO-MS current")
    assert (run.data.tags["config_hash"], run.data.tags["git_commit"]) == ("hash-1", "abc1234-dirty")


def test_parameters_are_all_in_which_two_runs_may_differ(here):
    begin()
    (run,) = runs()
    assert run.data.params["width"] == "0.42"
    assert run.data.params["schedule.learning_rate"] == "0.001"
    assert run.data.params["schedule.epochs"] == '{"others": 1}'
    data = {key: run.data.params[f"data.{key}"] for key in FACTS["data"]}
    assert data == {"patch_size": "128", "rates": "[1.0, 0.5]", "patches": "18", "classes": "15"}
    assert (run.data.params["version.torch"], run.data.params["device"]) == ("2.13.0", "CPU")


@pytest.mark.parametrize(("source", "shown"), [(None, "none"), ("mine.pth", "mine.pth")])
def test_the_weights_that_a_training_started_from(here, source, shown):
    """XS has COCO weights in its row, but neither of these started from them."""
    begin(pretrained=source)
    params = runs()[0].data.params
    assert params["pretrained"] == shown
    assert not {"checkpoint", "schedule.pretrained"} & set(params)


def test_curves_have_a_point_per_epoch(here):
    run_id = begin()
    log_epochs(run_id)
    assert curve(run_id) == [(1, 3.5), (2, 2.5)]
    columns = set(HISTORY[0].split(",")) - {"epoch", "step"}
    assert set(runs()[0].data.metrics) == {f"train/{key}" for key in columns} | {"AP50"}


def test_an_epoch_is_logged_once_and_one_that_was_missed_is_made_up_for(here):
    run_id = begin()
    log_epochs(run_id, HISTORY[2])  # MLflow did not accept the first
    log_epochs(run_id, HISTORY[2])
    assert curve(run_id) == [(2, 2.5)]
    finish(run_id)
    assert sorted(curve(run_id)) == [(1, 3.5), (2, 2.5)]


def test_pages_open_on_the_score(here):
    """MLflow's comparison shows the metric that was logged first, in the order of the database."""
    log_epochs(begin())
    rows = sqlite3.connect("mlflow.db").execute("SELECT key FROM latest_metrics ORDER BY rowid").fetchall()
    assert rows[0] == ("AP50",) and len(rows) == 6
    assert isnan(runs()[0].data.metrics["AP50"])  # which is not known yet
    tracking.log_evaluation(TRACK, scores(), [])
    assert runs()[0].data.metrics["AP50"] == 0.5


def test_scores_during_training_have_a_place_of_their_own(here):
    run_id = begin()
    Path("history.csv").write_text("epoch,step,lr,loss,val_AP50\n1,2,1e-3,3.5,\n2,4,1e-3,2.5,0.25\n")
    tracking.log_history(run_id, Path("history.csv"))
    points = tracking.client().get_metric_history(run_id, "val/AP50")
    assert [(point.step, point.value) for point in points] == [(2, 0.25)]


def test_a_row_that_is_being_written(here):
    run_id = begin()
    Path("history.csv").write_text("epoch,step,lr,loss\n1,2,1e-3,3.5\n2,4,1e")
    tracking.log_history(run_id, Path("history.csv"))
    assert curve(run_id) == [(1, 3.5)]


def test_a_diverged_loss_is_logged(here):
    run_id = begin()
    log_epochs(run_id, "1,2,1e-3,nan,inf,2.0,1.0")
    assert runs()[0].data.metrics["train/lr"] == 1e-3


def test_a_run_runs_while_its_training_does(here):
    run_id = begin()
    (run,) = runs()
    assert (run.info.status, run.info.end_time) == ("RUNNING", None)
    time.sleep(0.3)
    finish(run_id)
    (run,) = runs()
    assert run.info.status == "FINISHED" and run.info.end_time - run.info.start_time >= 300


def test_an_interrupted_training_counts_as_failed_until_it_resumes(here):
    tracking.end_training(begin(), "FAILED", "the loss is nan")
    (run,) = runs()
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "the loss is nan")
    assert run.data.tags["mlflow.note.content"] == "the loss is nan"
    begin(resumes=True)
    (run,) = runs()
    assert run.info.status == "RUNNING" and "failure" not in run.data.tags


def test_evaluation_leaves_status_and_times_alone(here):
    finish(begin())
    before = runs()[0].info
    tracking.log_evaluation(TRACK, scores(), [])
    after = runs()[0].info
    assert (after.status, after.start_time, after.end_time) == (
        before.status,
        before.start_time,
        before.end_time,
    )


def test_a_variant_that_was_not_trained_here_has_a_finished_run(here):
    tracking.log_evaluation(TRACK, scores(), [])
    assert runs()[0].info.status == "FINISHED"


def test_a_dataset_without_a_name(here):
    """As without --dataset and --split."""
    tracking.log_evaluation(TRACK, scores() | {"dataset": "", "split": "", "labels": "0" * 32}, [])
    (used,) = runs()[0].inputs.dataset_inputs
    assert used.dataset.name == "unnamed"


def test_a_resumed_training_continues_in_its_run_whatever_its_parameters(here):
    first = begin()
    log_epochs(first)
    assert begin(seed=7, resumes=True) == first  # MLflow raises if a parameter changes
    assert runs()[0].data.params["schedule.seed"] == "0"


def test_training_again_with_the_same_settings_begins_a_new_run(here):
    first = begin()
    assert begin() == first  # it has no epoch yet
    log_epochs(first)
    second = begin()
    log_epochs(second)
    assert first != second
    assert curve(first) == curve(second) == [(1, 3.5), (2, 2.5)]


def test_other_settings_begin_a_new_run_and_later_stages_follow(here):
    first, second = begin(mark="hash-1"), begin(mark="hash-2", seed=7)
    tracking.log_evaluation(TRACK, scores(), [])
    found = {run.info.run_id: run for run in runs()}
    assert first != second and set(found) == {first, second}
    assert isnan(found[first].data.metrics["AP50"]) and found[second].data.metrics["AP50"] == 0.5
    assert found[second].data.params["schedule.seed"] == "7"


def test_later_stages_follow_a_training_that_is_taken_up_again(here):
    first = begin(mark="hash-1")
    log_epochs(first)
    begin(mark="hash-2")
    assert begin(mark="hash-1", resumes=True) == first
    tracking.log_evaluation(TRACK, scores(), [])
    assert [run.info.run_id for run in runs() if run.data.metrics["AP50"] == 0.5] == [first]


def test_variants_and_datasets_have_runs_of_their_own(here):
    tracks = [TRACK, "mini/yoloms-xs-previous", "dota/yoloms-xs-current"]
    assert len({begin(track) for track in tracks}) == 3
    assert (len(runs("mini")), len(runs("dota"))) == (2, 1)


def test_files_are_where_the_server_looks_and_no_path_of_the_machine_is_kept(here):
    finish(begin())
    (run,) = runs()
    assert run.info.artifact_uri == f"mlflow-artifacts:/mini/{run.info.run_id}/artifacts"
    kept = here / "mlartifacts/mini" / run.info.run_id / "artifacts"
    assert sorted(path.name for path in kept.iterdir()) == ["config.py", "history.csv", "train.json"]
    assert (kept / "train.json").read_text() == "train.json"
    assert run.data.metrics["params_M"] == 5.09
    assert str(here).encode() not in (here / "mlflow.db").read_bytes()


def test_files_of_names_that_an_address_writes_otherwise(here):
    """The server looks for them under the unchanged name."""
    finish(begin("my set/a b"))
    (run,) = runs("my set")
    kept = here / "mlartifacts/my set" / run.info.run_id / "artifacts"
    assert sorted(path.name for path in kept.iterdir()) == ["config.py", "history.csv", "train.json"]


def test_another_database(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/elsewhere.db")
    (here / "mlflow.db").rename(here / "elsewhere.db")
    (here / "table.csv").write_text("a,b\n")
    tracking.log_evaluation(TRACK, scores(ship=0.5), [here / "table.csv"])
    (run,) = runs()
    names = [file.path for file in tracking.client().list_artifacts(run.info.run_id)]
    assert (names, (here / "mlflow.db").exists()) == (["table.csv"], False)


@pytest.mark.parametrize("name", ["car(parked)", "größe", "a@b,c", "plain-name"])
def test_class_names_of_all_sorts(here, name):
    tracking.log_evaluation(TRACK, scores(**{name: 0.5}), [])
    assert len(runs()[0].data.metrics) == 10


def test_the_experiment_opens_as_the_training_of_models(here):
    """Not on the pages for language models, where MLflow 3 puts an experiment without a kind."""
    begin("another/yoloms-xs-current")
    client = tracking.client()
    assert (
        client.get_experiment_by_name("another").tags["mlflow.experimentKind"] == "custom_model_development"
    )
    old = client.create_experiment("old")
    begin("old/yoloms-xs-current")
    assert client.get_experiment(old).tags["mlflow.experimentKind"] == "custom_model_development"


def test_runs_of_all_seeds_can_be_grouped(here):
    for seed, run in enumerate(("yoloms-xs-current", "yoloms-xs-current/seed-1")):
        begin(f"mini/{run}", seed=seed)
    assert {(run.data.tags["detector"], run.data.tags["seed"]) for run in runs()} == {
        ("yoloms-xs-current", "0"),
        ("yoloms-xs-current", "1"),
    }


def test_a_run_says_what_it_was_trained_and_scored_on(here):
    """Once for each content, whatever is logged again."""
    data = FACTS["data"] | {"contents": "0" * 32}
    for _ in range(2):
        begin(data=data, resumes=True)
        scored = scores(ship=0.5, plane=None) | {"dataset": "mini", "split": "val", "labels": "34824d0d17e9"}
        tracking.log_evaluation(TRACK, scored, [])
    (run,) = runs()
    assert [
        (each.dataset.name, each.dataset.digest, [tag.value for tag in each.tags])
        for each in sorted(run.inputs.dataset_inputs, key=lambda each: each.dataset.name)
    ] == [("mini train", "0" * 32, ["training"]), ("mini val", "34824d0d17e9", ["test"])]
    assert run.data.tags["seed"] == "0" and run.data.tags["mlflow.source.git.commit"] == FACTS["git_commit"]
    note = run.data.tags["mlflow.note.content"].splitlines()
    assert note == [
        "| class | mAP | AP50 | AP75 |",
        "|:--|--:|--:|--:|",
        "| all | 25.00 | 50.00 | 12.50 |",
        "| ship | 50.00 | 50.00 | 50.00 |",
    ]


@pytest.mark.parametrize("track", ["", "mini", "mini/", "/yoloms", "mini/it's"])
@pytest.mark.parametrize("log", [begin, lambda track: tracking.log_evaluation(track, scores(), [])])
def test_a_target_that_does_not_name_a_run(here, log, track):
    with pytest.raises(SettingsError, match="does not name a run; give EXPERIMENT/RUN"):
        log(track)


def test_a_deleted_experiment(here):
    number = tracking.prepare("mini")
    tracking.client().delete_experiment(number)
    with pytest.raises(SettingsError, match=f"was deleted in MLflow; .*--experiment-id {number}"):
        begin()


def test_runs_name_the_same_images_one_after_the_other(here, monkeypatch):
    """MLflow checks whether it knows them and then adds them, and fails if another did so in between."""
    tracking.prepare("mini")
    log_inputs, inside = MlflowClient.log_inputs, []

    def alone(self, *arguments, **named):
        inside.append(None)
        time.sleep(0.05)
        assert len(inside) == 1
        log_inputs(self, *arguments, **named)
        inside.pop()

    monkeypatch.setattr(MlflowClient, "log_inputs", alone)
    data = FACTS["data"] | {"contents": "0123abcd"}
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda name: begin(f"mini/{name}", name, data=data), "abc"))
    found = [tracking.client().get_run(run_id).inputs.dataset_inputs for run_id in made]
    assert [each.dataset.digest for (each,) in found] == ["0123abcd"] * 3


def test_images_that_another_machine_names_at_the_same_moment(here, monkeypatch):
    log_inputs, calls = MlflowClient.log_inputs, []

    def second(self, *arguments, **named):
        calls.append(arguments)
        if len(calls) == 1:
            raise MlflowException("UNIQUE constraint failed: datasets.name, datasets.digest")
        log_inputs(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_inputs", second)
    run_id = begin(data=FACTS["data"] | {"contents": "0123abcd"})
    assert len(tracking.client().get_run(run_id).inputs.dataset_inputs) == 1


def test_first_evaluations_of_a_variant_at_once_share_a_run(here, monkeypatch):
    from mlflow import MlflowClient

    search = MlflowClient.search_runs

    def slow_search(*args, **kwargs):
        found = search(*args, **kwargs)
        time.sleep(0.2)  # time enough for the others to find nothing, too
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(MlflowClient, "search_runs", slow_search)
        list(pool.map(lambda _: tracking.log_evaluation(TRACK, scores(), []), range(3)))
    assert len(runs()) == 1


def test_a_note_that_another_writer_adds_at_the_same_moment(here, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    set_tag, refusals = MlflowClient.set_tag, [MlflowException("UNIQUE constraint failed")]

    def refused_once(*args, **kwargs):
        if refusals:
            raise refusals.pop()
        return set_tag(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", refused_once)
        tracking.log_evaluation(TRACK, scores(), [])
    (run,) = runs()
    assert not refusals and "| all |" in run.data.tags["mlflow.note.content"]


def test_git_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking.git_commit() == "unknown"
    Path("code.py").write_text("a = 1\n")
    for words in (
        "init -q",
        "add code.py",
        "-c user.name=a -c user.email=a@b.c commit -q --no-gpg-sign -m first",
    ):
        subprocess.run(["git", *words.split()], check=True)
    clean = tracking.git_commit()
    assert len(clean) >= 7 and int(clean, 16)
    Path("code.py").write_text("a = 2\n")
    assert tracking.git_commit() == f"{clean}-dirty"


def test_without_git(monkeypatch):
    monkeypatch.setitem(os.environ, "PATH", "")
    assert tracking.git_commit() == "unknown"
