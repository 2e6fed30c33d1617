"""MLflow is brought up to date afterwards, from results alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiltbox import tracking
from tiltbox.__main__ import main
from tiltbox.errors import DataError
from tiltbox.provenance import Begun


def logged(experiment: str) -> list:
    mlflow = tracking.client()
    return mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture
def results(here, run) -> Path:
    """Results of a training that MLflow does not know, as in a clone that pulled them."""
    run.train.mkdir(parents=True)
    (run.train / "work").mkdir()
    for epoch in (1, 2):
        run.write(run.train / "work" / "history.csv", epoch)
    run.finish(run.train / "work", run.facts)
    settings = {
        "variant": run.variant.model_dump(mode="json"),
        "schedule": run.schedule.model_dump(mode="json"),
    }
    Begun("train").record(run.train / "provenance.json", [], settings=settings)
    return run.folder.parent


def test_nothing(here):
    with pytest.raises(DataError, match="contains no training; give the results of a dataset"):
        tracking.catch_up_all(Path("results"))


def test_results_without_a_journal_are_logged_once(results, capsys):
    for _ in range(2):
        assert main(["track", "results/mini"]) == 0
        assert capsys.readouterr().out == "FINISHED  results/mini/yoloms-xs-current\n"
    (found,) = logged("mini")
    record = json.loads((results / "yoloms-xs-current/train/provenance.json").read_text())
    assert found.info.end_time - found.info.start_time == pytest.approx(1000 * record["seconds"], abs=2)
    points = tracking.client().get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0)]
    assert {key: found.data.metrics[key] for key in ("params_M", "flops_G")} == {"params_M": 5, "flops_G": 22}
    files = {file.path for file in tracking.client().list_artifacts(found.info.run_id)}
    assert files == {"config.py", "history.csv", "train.json", "provenance.json"}
    assert [each.dataset.name for each in found.inputs.dataset_inputs] == ["mini train"]


@pytest.mark.parametrize("lacks", ["variant", "family"])
def test_results_of_a_version_with_other_settings(results, capsys, lacks):
    path = results / "yoloms-xs-current/train/provenance.json"
    record = json.loads(path.read_text())
    settings = record["settings"]
    (settings if lacks in settings else settings["variant"]).pop(lacks)
    path.write_text(json.dumps(record))
    assert main(["track", "results/mini"]) == 1
    message = capsys.readouterr().err
    assert "train/provenance.json: contains settings that this version of tiltbox does not know" in message
    assert "Traceback" not in message


def test_scores_and_a_table_that_has_changed(results):
    evaluate = results / "yoloms-xs-current/evaluate"
    evaluate.mkdir()
    scores = {"AP50": 0.5, "AP75": 0.25, "mAP": 0.25, "objects": 3}
    metrics = {"dataset": "mine", "split": "val", "labels": "34824d0d17e9", "images": 1, "classes": {}}
    (evaluate / "metrics.json").write_text(json.dumps(metrics | scores))
    for text in ("mAP: 0.5\n", "mAP: 0.4999\n"):
        (evaluate / "dota.txt").write_text(text)
        tracking.catch_up_all(results)
    (found,) = logged("mine")  # the dataset that it was scored on
    assert found.data.metrics["AP50"] == 0.5
    kept = Path("mlartifacts/mine") / found.info.run_id / "artifacts"
    assert (kept / "dota.txt").read_text() == "mAP: 0.4999\n"
    assert len(tracking.client().get_metric_history(found.info.run_id, "AP75")) == 1


def test_another_experiment(results):
    tracking.catch_up_all(results, "elsewhere")
    assert [each.info.run_name for each in logged("elsewhere")] == ["yoloms-xs-current"]


def test_results_of_another_training_than_the_journal_tells_of(results, run):
    """As after a checkout, which does not change the journal."""
    with run.training(mark="hash2") as write:
        write(1)
    (run.train / "train.json").write_text(json.dumps(run.facts | {"steps": 6, "seconds": 3.0}))
    tracking.catch_up_all(results)
    assert {each.data.tags["config_hash"] for each in logged("mini")} == {"hash1", "hash2"}


def test_a_record_that_is_missing(results):
    (results / "yoloms-xs-current/train/provenance.json").unlink()
    with pytest.raises(DataError, match=r"provenance\.json: "):
        tracking.catch_up_all(results)
