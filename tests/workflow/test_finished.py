"""A repository in which the real stages trained and scored two variants, and what changes to it rerun."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from programs import (
    PER_VARIANT,
    TWO,
    call,
    change_row,
    dry_run,
    jobs_of,
    repository,
    require_nothing_to_do,
    tried,
)

from tiltbox.dota.classes import DOTA_V1_CLASSES

REAL = ["dataset=tiny", f"variants={json.dumps(TWO)}", "gpus=0"]
pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def finished(copy_project, tmp_path_factory, preload) -> Iterator[Path]:
    """A repository in which Snakemake ran to the end; its stages start at once, too."""
    folder = repository(copy_project, tmp_path_factory.mktemp("finished") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(preload("python")), prepend=os.pathsep)
        call("snakemake", "--cores", "2", at=folder)
        yield folder


@pytest.fixture
def kept_configs(finished) -> Iterator[None]:
    """The settings of the finished project are as before when the test is over."""
    before = {path: path.read_text() for path in (finished / "configs").rglob("*.yaml")}
    yield
    for path, text in before.items():
        path.write_text(text)


# what is there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWO)
def test_results_of_a_variant(finished, name):
    results = finished / "results/tiny" / name
    assert (results / "train/checkpoint.pth").stat().st_size > 2**20
    with (results / "train/history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]
    assert (results / "predict/detections.parquet").exists()
    names = {path.name for path in (results / "merge").iterdir()}
    assert names - {".tiltbox"} == {"Task1.zip", *(f"Task1_{each}.txt" for each in DOTA_V1_CLASSES)}
    metrics = json.loads((results / "evaluate/metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["images"]) == ("tiny", "val", 1)
    assert set(metrics["classes"]) == set(DOTA_V1_CLASSES)
    assert (results / "evaluate/dota.txt").read_text().startswith("This is your evaluation result for task 1")
    counts = json.loads((results / "complexity/complexity.json").read_text())
    assert (counts["variant"], counts["input"]) == (name, [1, 3, 1024, 1024])


def test_leaderboard(finished):
    for suffix in ("md", "csv", "html"):
        text = (finished / f"results/tiny/leaderboard.{suffix}").read_text()
        assert all(name in text for name in TWO)


def results_shown(at: Path, *settings: str) -> dict[str, dict]:
    """What Snakemake's report contains, by path."""
    done = tried("snakemake", "--report", "report.html", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    text = (at / "report.html").read_text()
    return json.loads(re.search(r"^    var results = (.*);$", text, re.MULTILINE)[1])


def test_report_of_snakemake(finished, tmp_path):
    """From finished results alone, as in a clone that pulled them; the series can be switched."""
    shutil.copytree(
        finished,
        tmp_path / "clone",
        symlinks=True,
        ignore=shutil.ignore_patterns("data", ".snakemake", "*.pth"),
    )
    before = {path for path in (tmp_path / "clone").rglob("*") if ".snakemake" not in path.parts}
    shown = results_shown(tmp_path / "clone", *REAL)
    pages = {name: shown[f"results/tiny/detectors/{name}.html"] for name in TWO}
    assert len(shown) == 4 and {"results/tiny/leaderboard.html", "results/tiny/leaderboard.csv"} <= set(shown)
    labels = [page["labels"] for page in pages.values()]
    assert labels == [
        {"size": "XS", "series": f"YOLO-MS {each}", "seeds": "0"} for each in ("previous", "current")
    ]
    captions = [" ".join(page["caption"].split()) for page in pages.values()]
    assert all("hits, misses and false alarms" in caption for caption in captions)
    after = {path for path in (tmp_path / "clone").rglob("*") if ".snakemake" not in path.parts}
    assert {path.name for path in after - before} == {"report.html"}
    page = base64.b64decode(pages[TWO[0]]["data_uri"].partition(",")[2]).decode()
    assert f"<h1>{TWO[0]} on tiny</h1>" in page and "Predictions beside labels" in page


def test_report_of_snakemake_with_less_than_all(finished, tmp_path):
    """The switch appears only if every size has both series, and detectors only if they have pages."""
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    one = (REAL[0], f"variants={TWO[0]}", REAL[2])
    labels = results_shown(folder, *one)[f"results/tiny/detectors/{TWO[0]}.html"]["labels"]
    assert labels == {"detector": TWO[0], "seeds": "0"}
    (folder / f"results/tiny/detectors/{TWO[0]}.html").unlink()
    assert set(results_shown(folder, *REAL)) == {
        f"results/tiny/leaderboard.{each}" for each in ("csv", "html")
    }


def test_logs_and_benchmarks(finished):
    for name in TWO:
        for stage in PER_VARIANT:
            assert (finished / f"logs/tiny/{name}/{stage}.log").exists()
            assert (finished / f"logs/benchmarks/tiny/{name}/{stage}.tsv").exists()


def test_one_run_per_variant_in_mlflow(finished, monkeypatch):
    from tiltbox import tracking

    monkeypatch.chdir(finished)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tracking.client().search_runs([tracking.prepare("tiny")])
    assert sorted(run.info.run_name for run in runs) == sorted(TWO)
    for run in runs:
        metrics = json.loads(
            (finished / f"results/tiny/{run.info.run_name}/evaluate/metrics.json").read_text()
        )
        assert run.data.metrics["AP50"] == metrics["AP50"]
        assert {"train/loss", "params_M", "flops_G"} <= set(run.data.metrics)
        folder = finished / "mlartifacts" / run.info.artifact_uri.partition(":/")[2]
        kept = {path.name for path in folder.iterdir()}
        assert {"config.py", "history.csv", "train.json", "metrics.json", "dota.txt"} <= kept
        assert any(name.endswith(".png") for name in kept)


def test_a_second_run_has_nothing_to_do(finished):
    done = tried("snakemake", "--cores", "2", "--config", *REAL, at=finished)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_another_seed_does_not_train_the_first_again(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    settings = ["dataset=tiny", f"variants={TWO[0]}", "gpus=0", "seeds=0,1", "track=false"]
    expected = dict.fromkeys(PER_VARIANT[:-1], 1) | {"report": 1, "all_variants": 1}
    assert dry_run(folder, *settings) == expected
    done = tried("snakemake", "--cores", "2", "--config", *settings, at=folder)
    assert done.returncode == 0, done.stderr
    assert dry_run(folder, *settings) == {}
    results = folder / "results/tiny" / TWO[0]
    facts = [json.loads((place / "train/train.json").read_text()) for place in (results, results / "seed-1")]
    assert [each["seed"] for each in facts] == [0, 1] and facts[0]["config_hash"] != facts[1]["config_hash"]
    assert (results / "train/checkpoint.pth").read_bytes() != (
        results / "seed-1/train/checkpoint.pth"
    ).read_bytes()
    with (folder / "results/tiny/leaderboard.csv").open() as file:
        rows = {row["variant"]: row["seeds"] for row in csv.DictReader(file)}
    assert rows == {TWO[0]: "0+1", TWO[1]: "0"}
    assert (folder / f"logs/tiny/{TWO[0]}/seed-1/train.log").exists()


# what DVC makes of it -----------------------------------------------------------------------------------


def test_neither_snakemake_nor_dvc_has_anything_to_do(finished):
    require_nothing_to_do(finished)
    assert "all unchanged since they were written and read" in call(
        "tiltbox", "verify", "results/tiny", at=finished
    )


def test_a_clone_that_pulled(finished, tmp_path):
    (tmp_path / "remote").mkdir()
    call("git", "clone", "--quiet", str(finished), str(tmp_path / "clone"), at=tmp_path)
    clone = tmp_path / "clone"
    shutil.copy(finished / "dvc.lock", clone)
    for folder in (finished, clone):
        call("dvc", "remote", "add", "--force", "--default", "shared", str(tmp_path / "remote"), at=folder)
    call("dvc", "push", at=finished)
    call("dvc", "pull", at=clone)
    require_nothing_to_do(clone)
    assert TWO[1] in call("tiltbox", "report", "results/tiny", "--out", "again", at=clone)
    assert "Predictions beside labels" in (clone / "again/leaderboard.html").read_text()
    checked = call("tiltbox", "verify", "results/tiny", at=clone)
    assert "all unchanged since they were written and read" in checked
    assert (
        "not here, so not checked: data/tiny/patches/train, data/tiny/patches/val, data/tiny/raw/val/images,"
        " data/tiny/raw/val/labelTxt" in checked
    )


def test_metrics_of_dvc(finished):
    shown = json.loads(call("dvc", "metrics", "show", "--json", at=finished))
    found = {Path(path).as_posix(): each["data"] for path, each in shown[""]["data"].items()}
    assert set(found) == {f"results/tiny/metrics/{name}.json" for name in TWO}
    for name, params in zip(TWO, (4.48, 5.09), strict=True):  # as published
        figures = found[f"results/tiny/metrics/{name}.json"]
        metrics = json.loads((finished / f"results/tiny/{name}/evaluate/metrics.json").read_text())
        assert (figures["AP50"], figures["params (M)"]) == (round(100 * metrics["AP50"], 2), params)


@pytest.mark.parametrize("name", ["training", "ap_by_class"])
def test_plots_of_dvc(finished, name):
    """With our own templates, in which a column names the detector."""
    shown = call("dvc", "plots", "show", "--show-vega", f"results/tiny/plots/{name}.csv", at=finished)
    plot = json.loads(re.search(r"\{.*\}", shown, re.DOTALL).group())
    assert {row["detector"] for row in plot["data"]["values"]} == set(TWO)
    assert plot["encoding"]["color"]["field"] == "detector"


# what changes rerun -------------------------------------------------------------------------------------


def test_a_changed_row_reruns_that_variant_alone(finished, kept_configs):
    change_row(finished, "yoloms-xs-current", head_groups=2)
    folder = Path("results/tiny/yoloms-xs-current")
    outputs = {
        ("train", f"{folder}/train/checkpoint.pth"),
        ("predict", f"{folder}/predict/detections.parquet"),
        ("merge", f"{folder}/merge/Task1_plane.txt"),
        ("evaluate", f"{folder}/evaluate/metrics.json"),
        ("complexity", f"{folder}/complexity/complexity.json"),
        ("report", "results/tiny/leaderboard.md"),
    }
    assert jobs_of(finished, *REAL) == outputs


def test_a_comment_in_the_table_reruns_nothing(finished, kept_configs):
    path = finished / "configs/variants.yaml"
    path.write_text("# Another comment.\n" + path.read_text())
    assert dry_run(finished, *REAL) == {}


@pytest.mark.parametrize(
    "settings",
    [
        ["track=false"],
        ["dataset=configs/datasets/tiny.yaml"],
        ["schedule=smoke"],
        ["schedule=configs/schedules/smoke.yaml"],
        ["gpus=auto"],
        ["gpus=1"],
        [f"variants={TWO[0]}"],
    ],
)
def test_settings_that_do_not_change_results(finished, settings):
    again = {setting.partition("=")[0]: setting for setting in [*REAL, *settings]}.values()
    assert dry_run(finished, *again, CUDA_VISIBLE_DEVICES="0,1").keys() <= {"report", "all_variants"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("schedules/smoke.yaml", "workers: 0", "workers: 2"),
        ("variants.yaml", "dota/epoch_36.pth", "dota/epoch_12.pth"),
        ("variants.yaml", "coco.pth", "coco-2.pth"),  # the schedule starts from random weights
        ("schedules/smoke.yaml", "epochs: 1", "epochs: {l: 2, others: 1}"),  # none of the size
    ],
)
def test_edits_that_do_not_change_results(finished, kept_configs, file, old, new):
    path = finished / "configs" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert dry_run(finished, *REAL) == {}


def test_lost_logs_do_not_train_other_variants(finished, kept_configs, tmp_path):
    logs = (finished / "logs").rename(tmp_path / "logs")
    try:
        change_row(finished, "yoloms-xs-current", head_groups=2)
        jobs = dry_run(finished, *REAL)
    finally:
        shutil.rmtree(finished / "logs", ignore_errors=True)
        logs.rename(finished / "logs")
    assert jobs["train"] == 1


def test_a_new_database_trains_nothing(finished):
    done = tried("snakemake", "-n", "--forcerun", "tracking", "--config", *REAL, "--", "report", at=finished)
    assert "rule tracking:" in done.stdout and "rule train:" not in done.stdout


def test_another_schedule_trains_again(finished, kept_configs):
    path = finished / "configs/schedules/smoke.yaml"
    path.write_text(path.read_text().replace("max_steps: 2", "max_steps: 3"))
    assert dry_run(finished, *REAL) == dict.fromkeys(PER_VARIANT[:-1], 2) | {"report": 1, "all_variants": 1}


# The keys of a dataset that neither tool tracks, and why.
NOT_FOLLOWED = {
    "name": "names the folders: another one begins from nothing",
    "schedule": "a name; what the file says is followed",
    "test_labelled": "whether evaluate runs at all",
}


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("source", {"render": {"size": 128, "seed": 1, "images": {"train": 4, "val": 1}}}, "download"),
        ("expected", {"val": {"images": 1}}, "download"),
        ("splits", {}, "download"),
        ("train_splits", ["train", "val"], "split_train"),
        ("test_split", "train", "predict"),
        ("classes", list(reversed(DOTA_V1_CLASSES)), "download"),
        ("patch", {"size": 128, "overlap": 0}, "split_train"),
    ],
)
def test_keys_of_a_dataset(finished, kept_configs, key, value, first):
    path = finished / "configs/datasets/tiny.yaml"
    dataset = yaml.safe_load(path.read_text())
    if key == "splits":  # only for a folder
        splits = {
            name: {"images": f"{name}/images", "labels": f"{name}/labelTxt"} for name in ("train", "val")
        }
        dataset |= {"source": {"folder": str(finished / "data/tiny/raw")}}
        path.write_text(yaml.safe_dump(dataset | {"splits": splits}))
    else:
        path.write_text(yaml.safe_dump(dataset | {key: value}))
    assert first in dry_run(finished, *REAL)


def test_every_key_of_a_dataset_is_followed_or_not_on_purpose():
    from tiltbox.settings.datasets import Dataset

    (mark,) = (each for each in test_keys_of_a_dataset.pytestmark if each.name == "parametrize")
    assert {row[0] for row in mark.args[1]} | set(NOT_FOLLOWED) == set(Dataset.model_fields)


def test_another_patch_size_runs_all_but_the_download_again(finished, kept_configs):
    path = finished / "configs/datasets/tiny.yaml"
    path.write_text(path.read_text().replace("overlap: 24", "overlap: 32"))
    jobs = dry_run(finished, *REAL)
    assert jobs == dict.fromkeys(PER_VARIANT[:-1], 2) | dict.fromkeys(
        ("split_train", "split_test", "report", "all_variants"), 1
    )
