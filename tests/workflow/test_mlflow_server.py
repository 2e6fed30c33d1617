"""A real `mlflow ui`, started without arguments in the folder that the stages wrote to."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from tiltbox import tracking
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import find_schedule
from tiltbox.tracking.journal import Journal
from tiltbox.tracking.models import log_model

AP50 = {"yoloms-xs-previous": 0.25, "yoloms-xs-current": 0.5}
VARIANTS = {name: find_variant(name) for name in AP50}
SCHEDULE = find_schedule("smoke")
FACTS = {
    "git_commit": "abc1234",
    "pretrained": None,
    "device": "CPU",
    "data": {
        "classes": 15,
        "patch_size": 128,
        "overlap": 24,
        "rates": [1.0],
        "iof": 0.7,
        "contents": "69fb3eccc555",
    },
    "image_size": 128,
    "seed": 0,
    "versions": {},
}
FILES = {
    "train/config.py": "seed = 0\n",
    "train/history.csv": "epoch,step,lr,loss\n1,2,1e-3,3.0\n2,4,1e-3,2.0\n",
    "train/train.json": "{}\n",
    "train/checkpoint.pth": "weights\n",
    "evaluate/dota.txt": "mAP: 0.5\n",
}
API = "api/2.0/mlflow"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in which two variants were trained and evaluated, and which was then moved."""
    before = tmp_path_factory.mktemp("before") / "project"
    for name, text in FILES.items():
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        (before / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(before)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, ap50 in AP50.items():
            _log(name, ap50)
    after = tmp_path_factory.mktemp("after") / "moved"
    shutil.move(before, after)
    return after


def _log(name: str, ap50: float) -> None:
    facts = FACTS | {"config_hash": f"hash-of-{name}"}
    track = f"mini/{name}"
    run = tracking.begin_training(track, VARIANTS[name], SCHEDULE, facts, resumes=False)
    tracking.log_training(run, Path("train"), {"params": 5_000_000, "flops": 22_000_000_000})
    journal = Journal(
        training="1",
        track=track,
        variant=VARIANTS[name],
        schedule=SCHEDULE,
        facts=facts | {"variant": name},
        started=datetime.now(UTC),
    )
    log_model(run, Path("train"), journal)
    scores = {"mAP": ap50 / 2, "AP50": ap50, "AP75": ap50 / 4}
    scores["angle_error"] = {"median": 10 * ap50, "p90": 40 * ap50, "objects": 7}
    classes = {"classes": {"ship": scores}}
    tracking.log_evaluation(f"mini/{name}", scores | classes, [Path("evaluate/dota.txt")])


@pytest.fixture(scope="module")
def server(project, start_mlflow):
    return start_mlflow(project).address


def ask(server: str, path: str, **content) -> dict:
    answer = requests.post(f"{server}/{API}/{path}", json=content, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


def get(server: str, path: str, /, **query) -> requests.Response:
    answer = requests.get(f"{server}/{path}", params=query, timeout=60)
    assert answer.ok, answer.text
    return answer


@pytest.fixture(scope="module")
def runs(server) -> dict[str, dict]:
    experiments = ask(server, "experiments/search", max_results=10)["experiments"]
    number = next(each["experiment_id"] for each in experiments if each["name"] == "mini")
    found = ask(server, "runs/search", experiment_ids=[number])["runs"]
    assert len(found) == len(VARIANTS)
    return {run["info"]["run_name"]: run for run in found}


def as_dict(rows: list[dict]) -> dict:
    return {row["key"]: row["value"] for row in rows}


def test_page(server):
    assert "<title>MLflow</title>" in get(server, "").text


@pytest.mark.parametrize(("name", "ap50"), AP50.items())
def test_runs_can_be_compared(runs, name, ap50):
    data = runs[name]["data"]
    assert as_dict(data["metrics"]) == {
        "mAP": ap50 / 2,
        "AP50": ap50,
        "AP75": ap50 / 4,
        "mAP/ship": ap50 / 2,
        "AP50/ship": ap50,
        "AP75/ship": ap50 / 4,
        "angle_error_median": 10 * ap50,
        "angle_error_p90": 40 * ap50,
        "angle_error_median/ship": 10 * ap50,
        "angle_error_p90/ship": 40 * ap50,
        "params_M": 5.0,
        "flops_G": 22.0,
        "train/lr": 1e-3,
        "train/loss": 2.0,
    }
    params = as_dict(data["params"])
    assert (params["family"], params["pretrained"]) == ("yoloms", "none")
    tags = as_dict(data["tags"])
    assert {key: tags[key] for key in ("variant", "size", "config_hash")} == {
        "variant": name,
        "size": "xs",
        "config_hash": f"hash-of-{name}",
    }
    assert runs[name]["info"]["status"] == "FINISHED"


def test_runs_hold_the_same_keys(runs):
    """Otherwise the comparison of two has gaps."""
    first, second = (run["data"] for run in runs.values())
    for kind in ("metrics", "params"):
        assert as_dict(first[kind]).keys() == as_dict(second[kind]).keys()


def test_curve(server, runs):
    run_id = runs["yoloms-xs-current"]["info"]["run_id"]
    history = get(server, f"{API}/metrics/get-history", run_id=run_id, metric_key="train/loss").json()
    assert [(point["step"], point["value"]) for point in history["metrics"]] == [(1, 3.0), (2, 2.0)]


@pytest.mark.parametrize("name", VARIANTS)
def test_files_are_listed_and_served_after_the_project_moved(server, runs, name):
    run_id = runs[name]["info"]["run_id"]
    listed = get(server, f"{API}/artifacts/list", run_id=run_id).json()["files"]
    sizes = {Path(name).name: len(text) for name, text in FILES.items() if not name.endswith(".pth")}
    assert {file["path"]: int(file["file_size"]) for file in listed} == sizes
    assert get(server, "get-artifact", run_id=run_id, path="dota.txt").text == "mAP: 0.5\n"


def shown(browser) -> str:
    """What is visible in the window without scrolling."""
    return browser.evaluate(
        "[...document.querySelectorAll('[role=columnheader], [role=gridcell]')].filter(each => {"
        " const box = each.getBoundingClientRect();"
        " return box.width > 0 && box.right <= innerWidth && box.bottom <= innerHeight;"
        "}).map(each => each.innerText.trim()).join('|')"
    )


def test_the_list_of_runs_shows_the_scores_without_a_click(server, project, browser, monkeypatch):
    """At the address that `tiltbox tracking` prints."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    browser.open(tracking.address(tracking.prepare("mini")))
    for words in ("flops_G", "mini train"):
        browser.wait_for_words(words)
    found = shown(browser).split("|")
    for name in ("detector", "seed", "AP50", "mAP", "params_M", "flops_G", "Dataset", "Source"):
        assert name in found, found
    for value in ("yoloms-xs-current", "0", "0.5", "0.25", "5", "22"):
        assert value in found, found
    assert not browser.evaluate(
        "document.body.innerText.includes('Judges')"
    )  # of the pages for language models


def test_a_comparison_opens_on_the_score(server, runs, browser):
    names = json.dumps([runs[name]["info"]["run_id"] for name in AP50])
    browser.open(f'{server}/#/compare-runs?runs={names}&experiments=["1"]')
    browser.wait_for("document.querySelectorAll('.axis-title').length > 0")
    axes = browser.evaluate("[...document.querySelectorAll('.axis-title')].map(each => each.textContent)")
    assert axes[-1] == "AP50" and not any(axis.startswith("train/") for axis in axes)


def test_runs_of_a_detector_are_shown_together(server, project, browser, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    browser.open(tracking.address(tracking.prepare("mini")).replace("tiltbox-scores", "tiltbox-means"))
    browser.wait_for_words("Group: yoloms-xs-previous")


def test_the_registry_lists_detectors_with_aliases(server, browser):
    browser.open(f"{server}/#/models/mini-yoloms-xs-current?workflowType=machine_learning")
    browser.wait_for_words("seed-0")


def test_the_page_of_a_run_shows_data_model_and_scores(server, runs, browser):
    run = runs["yoloms-xs-current"]["info"]
    browser.open(f"{server}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}")
    for words in ("mini train (69fb3eccc555)", "AP50", "mini-yoloms-xs-current", "Finished"):
        browser.wait_for_words(words)
