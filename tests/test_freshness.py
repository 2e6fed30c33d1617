"""What has to be done again, judging by records alone, on small files that stand for the results."""

from __future__ import annotations

import json
import runpy
import shutil
import time
from pathlib import Path

import pytest
import yaml

from tiltbox.freshness import DATA, KEPT_HASHES, LARGE, Freshness
from tiltbox.provenance import file_hash
from tiltbox.settings.workflow import Plan, resolve

STAND_IN = Path(__file__).parent / "workflow/stand_in.py"
RUN = "yoloms-xs-current"
SETTINGS = {"dataset": "tiny", "variants": [RUN], "gpus": 0}
PLACES = {
    "train": f"results/tiny/{RUN}/train",
    "predict": f"results/tiny/{RUN}/predict/detections.parquet",
    "merge": f"results/tiny/{RUN}/merge",
    "evaluate": f"results/tiny/{RUN}/evaluate/metrics.json",
}
JOBS = [
    *(("download", ""), ("split_train", ""), ("split_test", ""), ("train", RUN), ("predict", RUN)),
    *(("merge", RUN), ("evaluate", RUN), ("complexity", RUN), ("report", "")),
]


def planned(**changes) -> Plan:
    return resolve(SETTINGS | changes, gpus=0)


@pytest.fixture
def project(copy_project, tmp_path, monkeypatch) -> Path:
    """A project in which everything was done once."""
    copy_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINING_SECONDS", "0")
    stand_in, freshness = runpy.run_path(STAND_IN)["work"], Freshness(planned())
    patches, results = "data/tiny/patches", f"results/tiny/{RUN}"
    arguments = {
        "download": ["tiny", "--out", "data/tiny/raw"],
        "split_train": ["data/tiny/raw/train", "--out", f"{patches}/train"],
        "split_test": ["data/tiny/raw/val", "--out", f"{patches}/val"],
        "train": [RUN, "--patches", f"{patches}/train", "--out", PLACES["train"]],
        "predict": [
            *(RUN, "--checkpoint", f"{results}/train/checkpoint.pth", "--patches", f"{patches}/val"),
            *("--out", PLACES["predict"]),
        ],
        "merge": [PLACES["predict"], "--out", PLACES["merge"]],
        "evaluate": [PLACES["merge"], "--out", PLACES["evaluate"]],
        "complexity": [RUN, "--out", f"{results}/complexity/complexity.json"],
        "report": ["results/tiny", "--out", "results/tiny"],
    }
    for rule, run in JOBS:
        monkeypatch.setenv("TILTBOX_JOB", freshness.key(rule, run))
        stand_in(rule.partition("_")[0], *arguments[rule])
    return tmp_path


def due(plan: Plan | None = None, *forced: str) -> dict[str, str]:
    """The rules that have to be done again, and why."""
    freshness = Freshness(plan or planned(), forced=forced)
    changes = {rule: freshness.change(rule, run) for rule, run in JOBS}
    return {rule: change for rule, change in changes.items() if change}


def here() -> set[str]:
    """The rules for which all outputs exist."""
    freshness = Freshness(planned())
    return {rule for rule, run in JOBS if freshness.is_here(rule, run)}


def missed(*targets: str) -> set[str]:
    """The rules of which something is missing that was asked for or that others need."""
    freshness = Freshness(planned(), targets)
    return {rule for rule, run in JOBS if freshness.is_missed(rule, run)}


def written(place: str, text: str) -> None:
    path = Path(place)
    path.unlink(missing_ok=True)
    path.write_text(text)


def test_nothing(copy_project, tmp_path, monkeypatch):
    copy_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert due() == {} and here() == set()


def test_all_is_right(project):
    assert due() == {} and here() == {rule for rule, _ in JOBS}


def test_a_file_that_was_read_and_changed(project):
    """The stage that wrote it does not run again, so the manual edit is not lost."""
    written(f"{PLACES['merge']}/Task1_ship.txt", "edited")
    assert due() == {
        "evaluate": f"{PLACES['merge']}/Task1_ship.txt has changed",
        "report": f"evaluate {RUN} must run again",
    }


def test_a_file_more_in_a_folder_that_was_read_whole(project):
    written(f"{PLACES['merge']}/Task1_submarine.txt", "")
    assert due()["evaluate"] == f"{PLACES['merge']}/Task1_submarine.txt is new"


def test_a_file_that_is_gone_is_made_again_where_it_is_needed_alone(project):
    Path(PLACES["predict"]).unlink()
    assert due() == {} and here() == {rule for rule, _ in JOBS} - {"predict"}


def test_data_that_are_not_here(project):
    """For example in a clone that pulled the results."""
    shutil.rmtree("data")
    assert due() == {} and here() == {rule for rule, _ in JOBS} - set(DATA)


def test_data_that_were_made_for_other_settings(project, monkeypatch):
    """As after checking out another branch: data of the other branch on the disk count as missing."""
    monkeypatch.setenv("TILTBOX_JOB", "another key")
    stand_in = runpy.run_path(STAND_IN)["work"]
    for split in ("train", "val"):
        stand_in("split", f"data/tiny/raw/{split}", "--out", f"data/tiny/patches/{split}")
    assert due() == dict.fromkeys(DATA[1:], "its settings have changed, or those of a job before it")


def test_a_training_that_was_begun_again(project):
    (Path(PLACES["train"]) / "work").mkdir()
    assert due()["train"] == "it was restarted and did not finish"
    assert list(due()) == ["train", "predict", "merge", "evaluate", "report"]


def test_links_to_images_of_ones_own(project):
    """Another folder with the same content, and a missing one."""
    for name in ("old", "new"):
        for place in ("train/images/a.png", "train/labelTxt/a.txt", "val/images/a.png", "val/labelTxt/a.txt"):
            path = project / name / place
            path.parent.mkdir(parents=True)
            path.write_text("")
    place = Path("configs/datasets/tiny.yaml")
    settings = yaml.safe_load(place.read_text()) | {"source": {"folder": "../../old"}}
    place.write_text(yaml.safe_dump(settings))
    for split in ("train", "val"):
        for kind in ("images", "labelTxt"):
            link = project / "data/tiny/raw" / split / kind
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(project / "old" / split / kind)
    record = Path("data/tiny/raw.provenance.json")
    content = json.loads(record.read_text()) | {"job": Freshness(planned()).key("download")}
    record.write_text(json.dumps(content))
    assert "download" not in due()
    place.write_text(yaml.safe_dump(settings | {"source": {"folder": "../../new"}}))
    assert due()["download"] == "the folder of images in its settings has changed or was moved"
    place.write_text(yaml.safe_dump(settings))
    (project / "old/val/images").rename(project / "old/val/pictures")
    assert due()["download"]


def test_patches_cut_otherwise_count_where_they_were_read(project):
    written("data/tiny/patches/val/manifest.json", "other patches")
    assert list(due()) == ["predict", "merge", "evaluate", "report"]


def test_a_record_that_is_damaged(project):
    written(f"{PLACES['train']}/provenance.json", "{")
    assert due()["train"] == "its record is missing or damaged"
    assert list(due()) == ["train", "predict", "merge", "evaluate", "report"]


def test_settings(project):
    path = Path("configs/variants.yaml")
    table = yaml.safe_load(path.read_text())
    table["variants"][RUN]["head_groups"] = 2
    path.write_text(yaml.safe_dump(table))
    assert list(due()) == ["train", "predict", "merge", "evaluate", "complexity", "report"]


def test_a_setting_of_the_data_reaches_all_that_was_made_of_them(project):
    """This also holds in a clone, which has no patches to compare with."""
    shutil.rmtree("data")
    path = Path("configs/datasets/tiny.yaml")
    path.write_text(path.read_text().replace("overlap: 24", "overlap: 32"))
    assert {"train", "predict", "merge", "evaluate", "report"} <= due().keys()
    assert "complexity" not in due()


def test_another_seed_is_another_job(project):
    freshness = Freshness(planned(seeds=[0, 1]))
    assert freshness.change("train", RUN) is None
    assert freshness.change("train", f"{RUN}/seed-1") is None and not freshness.is_here(
        "train", f"{RUN}/seed-1"
    )
    assert "its settings have changed" in freshness.change("report")


@pytest.mark.parametrize("forced", ["merge", f"{PLACES['merge']}/Task1.zip"])
def test_what_is_asked_for_takes_what_follows_along(project, forced):
    assert due(None, forced)["merge"] == "it was asked for"
    assert list(due(None, forced)) == ["merge", "evaluate", "report"]
    assert list(due(None, *(rule for rule, _ in JOBS))) == [rule for rule, _ in JOBS]


@pytest.mark.parametrize("forced", ["merge", f"{PLACES['merge']}/Task1.zip"])
def test_what_is_asked_for_needs_no_record(project, forced):
    """Without one it is not known which files the job made."""
    shutil.rmtree(PLACES["merge"])
    Path(f"{PLACES['merge']}.provenance.json").unlink()
    assert list(due(None, forced)) == ["merge", "evaluate", "report"]


def test_large_files_are_read_once(project, monkeypatch):
    weights = Path(PLACES["train"]) / "checkpoint.pth"
    weights.unlink()
    weights.write_bytes(bytes(LARGE))
    freshness = Freshness(planned())
    assert "checkpoint.pth has changed" in freshness.change("predict", RUN)
    freshness.keep_hashes()
    assert KEPT_HASHES.exists()
    reads = []
    monkeypatch.setattr(
        "tiltbox.freshness.file_hash", lambda path: reads.append(path.name) or file_hash(path)
    )
    assert "checkpoint.pth has changed" in Freshness(planned()).change("predict", RUN)
    assert reads and "checkpoint.pth" not in reads
    time.sleep(0.01)
    weights.write_bytes(bytes(LARGE))
    Freshness(planned()).change("predict", RUN)
    assert "checkpoint.pth" in reads


@pytest.mark.parametrize(
    ("lost", "needed"),
    [
        (["data/tiny/raw", "data/tiny/patches"], set()),  # a clone that pulled
        ([PLACES["train"], PLACES["predict"]], set()),
        ([PLACES["predict"], PLACES["merge"], PLACES["evaluate"]], {"predict", "merge", "evaluate"}),
        ([f"results/tiny/{RUN}/complexity"], set()),
        (["results/tiny/leaderboard.html"], {"report"}),
        ([PLACES["train"], "results/tiny/leaderboard.html"], {"train", "report"}),  # it shows how that went
        ([f"{PLACES['train']}/checkpoint.pth", "results/tiny/leaderboard.html"], {"report"}),
        (
            [f"{PLACES['train']}/checkpoint.pth", PLACES["predict"], "results/tiny/leaderboard.csv"],
            {"report"},
        ),
        ([f"{PLACES['merge']}/Task1.zip", PLACES["evaluate"]], {"evaluate"}),
        (["data", "results"], {rule for rule, _ in JOBS}),
    ],
)
def test_what_is_missed(project, lost, needed):
    """If what was made from it is here, nobody needs it."""
    for place in map(Path, lost):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert missed() == needed


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        (f"{PLACES['train']}/history.csv", {"train", "split_train", "download"}),
        (f"{PLACES['train']}/checkpoint.pth", set()),  # it is here
        ("split_test", {"split_test", "download"}),
        (PLACES["evaluate"], set()),
    ],
)
def test_what_is_missed_if_it_was_asked_for(project, target, needed):
    shutil.rmtree("data")
    Path(PLACES["train"], "history.csv").unlink()
    assert missed(target) == needed and missed() == set()


def test_without_labels_scores_are_not_missed(project):
    """Nothing is scored then, so a lost file to submit is needed only for the report."""
    place = Path("configs/datasets/tiny.yaml")
    place.write_text(yaml.safe_dump(yaml.safe_load(place.read_text()) | {"test_labelled": False}))
    Path(PLACES["merge"], "Task1_ship.txt").unlink()
    shutil.rmtree(Path(PLACES["evaluate"]).parent)
    (record,) = Path("results/tiny").glob("leaderboard.*provenance*")
    made = json.loads(record.read_text()) | {"job": Freshness(planned()).key("report", "")}
    record.write_text(json.dumps(made))
    freshness = Freshness(planned())
    assert freshness.change("report", "") is None
    assert not freshness.is_here("merge", RUN) and not freshness.is_missed("merge", RUN)
