"""The real DVC on a copy of dvc.yaml in a git repository of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
VARIANT = "yoloms-xs-current"
RESULTS = f"results/tiny/{VARIANT}"
STAGES = ["download", "split", "train", "predict", "merge", "evaluate", "complexity", "report"]


def call(command: str, *arguments: str, at: Path) -> str:
    """What it prints; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
    environment["DVC_NO_ANALYTICS"] = "1"
    done = subprocess.run(
        [command, *arguments], cwd=at, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cloned(copy_project, tmp_path_factory) -> Path:
    """A repository as after cloning, reduced to one variant and the tiny set."""
    folder = copy_project(tmp_path_factory.mktemp("dvc"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    change(folder / "configs/config.yaml", lambda config: config | {"variants": [VARIANT], "gpus": "auto"})
    change(folder / "dvc.yaml", _reduced)
    call("git", "init", "--quiet", at=folder)
    call("git", "add", "--all", at=folder)
    author = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    call("git", *author, "commit", "--quiet", "--no-gpg-sign", "--message", "clone", at=folder)
    return folder


def _reduced(pipeline: dict) -> dict:
    text = json.dumps(pipeline).replace("configs/datasets/mini.yaml:", "configs/datasets/tiny.yaml:")
    pipeline = json.loads(text)
    report = pipeline["stages"]["report"]
    report["deps"] = [path for path in report["deps"] if "/yoloms-" not in path or VARIANT in path]
    return pipeline


@pytest.fixture(scope="module")
def reproduced(cloned) -> Path:
    call("dvc", "repro", at=cloned)
    return cloned


def change(path: Path, edit) -> None:
    path.write_text(yaml.safe_dump(edit(yaml.safe_load(path.read_text())), sort_keys=False))


# the file as it is in the repository --------------------------------------------------------------------


def test_same_stages_as_everywhere():
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    verbs = {
        name: re.search(r"tiltbox (\w+)", str(stage)).group(1) for name, stage in pipeline["stages"].items()
    }
    assert set(verbs.values()) == {*STAGES, "tracking"}
    assert all(name.split("_")[0] == verb for name, verb in verbs.items())


def test_the_report_depends_on_all_variants():
    """DVC cannot list them by itself: who adds a variant adds it there, too."""
    report = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    files = ("train/train.json", "evaluate/metrics.json", "complexity/complexity.json")
    for name in yaml.safe_load((ROOT / "configs/config.yaml").read_text())["variants"]:
        assert {f"results/${{name}}/{name}/{file}" for file in files} <= set(report["deps"])
    named = {path.split("/")[2] for path in report["deps"] if path.startswith("results/")}
    assert named == set(yaml.safe_load((ROOT / "configs/config.yaml").read_text())["variants"])


def test_links_rather_than_copies():
    assert 'type = "reflink,hardlink,symlink"' in (ROOT / ".dvc/config").read_text()


# a fresh clone ------------------------------------------------------------------------------------------


def test_stages_of_a_clone(cloned):
    names = call("dvc", "stage", "list", "--name-only", at=cloned).split()
    assert set(names) == {
        *("tracking", "download", "split_train", "split_test", "report"),
        *(f"{stage}@{VARIANT}" for stage in STAGES[2:7]),
    }


def test_results(reproduced):
    assert (reproduced / RESULTS / "merge/Task1.zip").exists()
    assert VARIANT in (reproduced / "results/tiny/leaderboard.md").read_text()


def test_nothing_is_left_to_do(reproduced):
    assert "up to date" in call("dvc", "status", at=reproduced)
    assert "Running stage" not in call("dvc", "repro", at=reproduced)


def test_metrics(reproduced):
    shown = json.loads(call("dvc", "metrics", "show", "--json", at=reproduced))
    files = {Path(path).as_posix(): each["data"] for path, each in shown[""]["data"].items()}
    metrics = json.loads((reproduced / RESULTS / "evaluate/metrics.json").read_text())
    assert files[f"{RESULTS}/evaluate/metrics.json"]["AP50"] == metrics["AP50"]
    assert 5.085e6 < files[f"{RESULTS}/complexity/complexity.json"]["params"] < 5.095e6  # published: 5.09 M


def test_a_plot_has_one_curve():
    """DVC draws all rows of a file as one line: thirty precision-recall curves would make a scribble."""
    text = (ROOT / "dvc.yaml").read_text()
    plots = re.findall(r"plots:\n +- \S+/(\w+\.csv)", text)
    assert plots == ["history.csv"]


def test_plots(reproduced):
    assert "loss" in call(
        "dvc", "plots", "show", "--show-vega", f"{RESULTS}/train/history.csv", at=reproduced
    )


def test_final_results_are_in_the_cache(reproduced):
    lock = yaml.safe_load((reproduced / "dvc.lock").read_text())
    outs = {each["path"]: each["md5"] for stage in lock["stages"].values() for each in stage["outs"]}
    for name in ("train/checkpoint.pth", "predict/detections.parquet", "merge"):
        assert in_cache(reproduced, outs[f"{RESULTS}/{name}"]), name


def test_checkpoints_are_not_twice_on_the_disk(reproduced):
    """Linked to the cache; where the file system can, as a reflink, which no file shows."""
    weights = reproduced / RESULTS / "train/checkpoint.pth"
    linked = weights.is_symlink() or weights.stat().st_nlink > 1
    assert linked or _has_reflinks(reproduced)


def _has_reflinks(folder: Path) -> bool:
    copied = ["cp", "--reflink=always", "dvc.yaml", ".dvc/tmp/reflink"]
    return subprocess.run(copied, cwd=folder, capture_output=True, check=False).returncode == 0


def test_images_and_patches_are_not(reproduced):
    paths = [path for path in (reproduced / "data/tiny").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(paths) > 8
    assert not any(in_cache(reproduced, hashlib.md5(path.read_bytes()).hexdigest()) for path in paths)


def in_cache(folder: Path, md5: str) -> bool:
    return (folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists()


def test_a_comment_in_the_table_reproduces_nothing(reproduced):
    path = reproduced / "configs/variants.yaml"
    before = path.read_text()
    path.write_text("# Another comment.\n" + before)
    try:
        assert "up to date" in call("dvc", "status", at=reproduced)
    finally:
        path.write_text(before)


def test_a_changed_row_is_noticed(reproduced):
    path = reproduced / "configs/variants.yaml"
    before = path.read_text()
    change(path, lambda table: {**table, "variants": _wider(table["variants"])})
    try:
        status = json.loads(call("dvc", "status", "--json", at=reproduced))
    finally:
        path.write_text(before)
    assert set(status) == {f"train@{VARIANT}", f"complexity@{VARIANT}"}


def _wider(rows: dict) -> dict:
    return rows | {VARIANT: rows[VARIANT] | {"width": 0.5}}


# The keys that `dvc repro` does not follow, and why.
NOT_FOLLOWED = {
    "dataset": "its name and file stand in dvc.yaml",
    "schedule": "the dataset's name for it is put into the commands; what the file says is followed",
    "track": "an option cannot be left out",
    "seeds": "DVC trains with seed 0: it can make no path of two lists that is plain for one seed",
    "variants": "the stages themselves",
    "gpus": "put into the commands",
    "name": "put into all paths",
    "test_labelled": "whether there is an evaluate stage is the user's to say",
    "splits": "for a folder alone; download follows the whole file",
}


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("source", {"render": {"size": 128, "seed": 1, "images": {"train": 4, "val": 1}}}, {"download"}),
        ("expected", {"val": {"images": 1}}, {"download"}),
        ("train_splits", ["train", "val"], {"split_train"}),
        ("test_split", "train", {"split_test", f"predict@{VARIANT}", f"evaluate@{VARIANT}"}),
        ("patch", {"size": 128, "overlap": 0}, {"split_train", "split_test"}),
        (
            "classes",
            ["ship"],
            {"split_train", "split_test", *(f"{stage}@{VARIANT}" for stage in STAGES[2:7])},
        ),
    ],
)
def test_keys_of_a_dataset(reproduced, key, value, stages):
    path = reproduced / "configs/datasets/tiny.yaml"
    before = path.read_text()
    change(path, lambda dataset: dataset | {key: value})
    try:
        status = json.loads(call("dvc", "status", "--json", at=reproduced))
    finally:
        path.write_text(before)
    assert stages <= set(status)


def test_every_key_is_followed_or_not_on_purpose():
    from tiltbox.settings.datasets import Dataset
    from tiltbox.settings.workflow import Workflow

    (mark,) = (each for each in test_keys_of_a_dataset.pytestmark if each.name == "parametrize")
    followed = {row[0] for row in mark.args[1]}
    assert followed | set(NOT_FOLLOWED) == {*Dataset.model_fields, *Workflow.model_fields}


def test_git_sees_the_lock_alone(reproduced):
    assert call("git", "status", "--porcelain", at=reproduced).split() == ["??", "dvc.lock"]
