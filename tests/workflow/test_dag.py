"""The real Snakemake on a copy of the workflow."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ALL = [f"yoloms-{size}-{generation}" for generation in ("previous", "current") for size in ("xs", "s", "l")]
TWO = ["yoloms-xs-previous", "yoloms-xs-current"]
PER_VARIANT = ("train", "predict", "merge", "evaluate", "complexity")
ONCE = ("download", "split_train", "split_test", "tracking", "report", "all_variants")
REAL = ["dataset=tiny", f"variants={json.dumps(TWO)}", "gpus=0"]


def call(command: str, *arguments: str, at: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        [BIN / command, *arguments], cwd=at, env=environment, capture_output=True, text=True, check=False
    )


def dry_run(at: Path, *settings: str, targets: tuple[str, ...] = ()) -> dict[str, int]:
    """How many jobs of each rule would run; empty where there is nothing to be done."""
    done = call("snakemake", *targets, "--dry-run", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    if "Nothing to be done" in done.stdout + done.stderr:
        return {}
    (table,) = set(re.findall(r"Job stats:\n.*?\n\n", done.stdout, flags=re.DOTALL))
    jobs = dict(re.findall(r"^(\w[\w-]*) +(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "total"}


def jobs_of(at: Path, *settings: str) -> set[tuple[str, str]]:
    """Rule and output folder or file of all jobs that would run."""
    done = call("snakemake", "--dry-run", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^rule ([\w-]+):\n(?:    .*\n)*?    output: ([^\s,]+)", done.stdout, flags=re.MULTILINE
    )
    return set(found)


@pytest.fixture(scope="module")
def fresh(copy_project, tmp_path_factory) -> Path:
    """A project in which nothing ran yet; only for dry runs."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def finished(copy_project, tmp_path_factory) -> Path:
    """A project in which two variants ran to the end."""
    folder = copy_project(tmp_path_factory.mktemp("finished"))
    done = call("snakemake", "--cores", "2", "all_variants", "--config", *REAL, at=folder)
    assert done.returncode == 0, done.stderr
    return folder


# before anything runs -----------------------------------------------------------------------------------


def test_every_variant_goes_through_every_stage(fresh):
    assert dry_run(fresh, "gpus=0") == dict.fromkeys(PER_VARIANT, 6) | dict.fromkeys(ONCE, 1)


def test_all_variants_is_the_default_target(fresh):
    expected = dict.fromkeys(PER_VARIANT, 6) | dict.fromkeys(ONCE, 1)
    assert dry_run(fresh, "gpus=0", targets=("all_variants",)) == expected


@pytest.mark.parametrize("name", [ALL[0], ALL[-1]])
def test_a_variant_is_a_target(fresh, name):
    jobs = dry_run(fresh, "gpus=0", targets=(name,))
    once = ("download", "split_train", "split_test", "tracking", name)
    assert jobs == dict.fromkeys((*PER_VARIANT, *once), 1)


def test_without_labels_it_ends_in_the_file_to_submit(fresh):
    dataset = yaml.safe_load((fresh / "configs/datasets/tiny.yaml").read_text())
    dataset |= {"test_split": "test", "test_labelled": False}
    (fresh / "unlabelled set.yaml").write_text(yaml.safe_dump(dataset))  # a blank in the name is no trouble
    jobs = jobs_of(fresh, "dataset=unlabelled set.yaml", *REAL[1:])
    assert not any(rule == "evaluate" for rule, _ in jobs)
    assert {rule for rule, _ in jobs} >= {"train", "predict", "merge", "complexity", "report"}
    assert ("merge", "results/tiny/yoloms-xs-current/merge/Task1_plane.txt") in jobs


def test_training_and_test_on_the_same_split(fresh):
    """To see whether a detector can learn a set by heart."""
    dataset = yaml.safe_load((fresh / "configs/datasets/tiny.yaml").read_text()) | {"test_split": "train"}
    (fresh / "same.yaml").write_text(yaml.safe_dump(dataset))
    jobs = dry_run(fresh, "dataset=same.yaml", *REAL[1:])
    assert (jobs["split_train"], jobs["predict"], "split_test" in jobs) == (1, 2, False)


def test_without_tracking(fresh):
    assert "tracking" not in dry_run(fresh, *REAL, "track=false")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("datset=mini", "configs/config.yaml: datset: unknown key; did you mean 'dataset'?"),
        ("dataset=mnii", "configs/datasets: unknown dataset 'mnii'; did you mean 'mini'?"),
        (
            "variants=['yoloms-xs-curent']",
            "configs/config.yaml: variants: unknown variant 'yoloms-xs-curent';"
            " did you mean 'yoloms-xs-current'?",
        ),
    ],
)
def test_wrong_settings_die_before_there_is_a_dag(fresh, setting, message):
    done = call("snakemake", "--dry-run", "--config", setting, at=fresh)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"snakemake: {message}"
    assert "Traceback" not in done.stderr and "Job stats" not in done.stdout


def test_a_contradiction_in_a_row_names_the_variant(fresh, copy_project, tmp_path):
    folder = copy_project(tmp_path)
    change_row(folder, "yoloms-s-current", query_size=None)
    done = call("snakemake", "--dry-run", at=folder)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "configs/variants.yaml: variants.yoloms-s-current: attention and query_size go together" in last


def test_no_file_of_an_unknown_variant_can_be_asked_for(fresh):
    done = call("snakemake", "--dry-run", "results/mini/yoloms-m-current/train/checkpoint.pth", at=fresh)
    assert done.returncode == 1
    assert "MissingRuleException" in done.stdout + done.stderr


def test_lint(fresh):
    done = call("snakemake", "--lint", at=fresh)
    assert "your workflow is in a good condition" in done.stdout + done.stderr
    assert done.returncode == 0


def test_formatted(fresh):
    done = call("snakefmt", "--check", "Snakefile", "workflow", at=fresh)
    assert done.returncode == 0, done.stderr


def test_every_rule_has_log_benchmark_and_resources():
    """The targets, which run nothing, apart."""
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", path.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" in rule:
                for part in ("log:", "benchmark:", "resources:", "mem_mb=", "runtime="):
                    assert part in rule, (path.name, part, rule)


# after a real run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWO)
def test_results_of_a_variant(finished, name):
    results = finished / "results/tiny" / name
    assert (results / "train/checkpoint.pth").stat().st_size > 2**20
    with (results / "train/history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2"]
    assert (results / "predict/detections.parquet").exists()
    names = {path.name for path in (results / "merge").iterdir()}
    assert names == {"Task1.zip", *(f"Task1_{each}.txt" for each in DOTA_V1_CLASSES)}
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


def test_logs_and_benchmarks(finished):
    for name in TWO:
        for stage in PER_VARIANT:
            assert (finished / f"logs/tiny/{name}/{stage}.log").exists()
            assert (finished / f"logs/benchmarks/tiny/{name}/{stage}.tsv").exists()


def test_one_run_per_variant_in_mlflow(finished, monkeypatch):
    from tiltbox import tracking

    monkeypatch.chdir(finished)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tracking._client().search_runs([tracking.prepare("tiny")])
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
    done = call("snakemake", "--cores", "2", "--config", *REAL, at=finished)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


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


def test_another_patch_size_runs_all_but_the_download_again(finished, kept_configs):
    path = finished / "configs/datasets/tiny.yaml"
    path.write_text(path.read_text().replace("overlap: 24", "overlap: 32"))
    jobs = dry_run(finished, *REAL)
    assert jobs == dict.fromkeys(PER_VARIANT[:-1], 2) | dict.fromkeys(
        ("split_train", "split_test", "report", "all_variants"), 1
    )


@pytest.fixture
def kept_configs(finished):
    """The settings of the finished project are as before when the test is over."""
    before = {path: path.read_text() for path in (finished / "configs").rglob("*.yaml")}
    yield
    for path, text in before.items():
        path.write_text(text)


def change_row(folder: Path, name: str, **change) -> None:
    path = folder / "configs/variants.yaml"
    table = yaml.safe_load(path.read_text())
    table["variants"][name] |= change
    path.write_text(yaml.safe_dump(table))
