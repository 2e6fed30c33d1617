"""Snakemake and DVC one after the other, in every order: neither repeats what the other has done.

The stages do no work but leave the same records as the real ones, which test_finished.py uses.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from programs import (
    BIN,
    MORTAL,
    PER_VARIANT,
    ROOT,
    TWO,
    call,
    change,
    change_row,
    commit,
    environment_of,
    repository,
    require_nothing_to_do,
    tried,
    with_stand_ins,
)

EVERYTHING = {"snakemake": ("snakemake", "--cores", "2", "all_variants"), "dvc": ("dvc", "repro")}
pytestmark = pytest.mark.usefixtures("preloaded")


def calls(at: Path) -> list[str]:
    """The stages that ran since the last call; the report once, since every evaluation makes it."""
    notes = at / "calls"
    found = [line.split()[0] for line in notes.read_text().splitlines()] if notes.exists() else []
    notes.unlink(missing_ok=True)
    return [verb for verb in found if verb != "report"] + ["report"] * ("report" in found)


def copied(folder: Path, to: Path) -> Path:
    """As ``cp -r`` does it: with new times."""
    shutil.copytree(folder, to, symlinks=True, copy_function=shutil.copyfile)
    for program in (to / "bin").glob("*"):
        program.chmod(0o755)
    return to


@pytest.fixture(scope="module")
def new(copy_project, tmp_path_factory) -> Path:
    """A clone in which nothing has run, with stages that do no work."""
    folder = tmp_path_factory.mktemp("new") / "project"
    return with_stand_ins(repository(copy_project, folder, track=False))


def everything_done(by: str, new: Path, folders: pytest.TempPathFactory) -> Path:
    folder = copied(new, folders.mktemp(by) / "project")
    call(*EVERYTHING[by], at=folder)
    expected = ["complexity", "train", "predict", "merge", "evaluate"] * 2
    assert sorted(calls(folder)) == sorted([*expected, "download", "split", "split", "report"])
    return folder


@pytest.fixture(scope="module")
def both(new, tmp_path_factory) -> dict[str, Path]:
    """A project in which one of the two commands did everything, for each."""
    return {name: everything_done(name, new, tmp_path_factory) for name in EVERYTHING}


@pytest.fixture
def project(both, request, tmp_path) -> Path:
    """A copy to modify: made by DVC if the test continues with Snakemake, else by Snakemake."""
    goes_on = getattr(request.node, "callspec", None) and request.node.callspec.params.get("command")
    return copied(both["dvc" if goes_on == "snakemake" else "snakemake"], tmp_path / "project")


# after one command the other has nothing to do ----------------------------------------------------------


@pytest.mark.parametrize("first", EVERYTHING)
@pytest.mark.parametrize("second", EVERYTHING)
def test_after_either_command(both, first, second):
    require_nothing_to_do(both[first])
    call(*EVERYTHING[second], at=both[first])
    assert calls(both[first]) == []


def test_after_a_copy_and_a_move(project, tmp_path):
    require_nothing_to_do(project)
    require_nothing_to_do(project.rename(tmp_path / "elsewhere"))


def test_after_new_times(project):
    """From the results to the images, which is the worst order."""
    files = [path for name in ("results", "data", "configs") for path in sorted((project / name).rglob("*"))]
    for number, path in enumerate(reversed(files)):
        os.utime(path, times=(time.time() + number, time.time() + number))
    require_nothing_to_do(project)


def test_without_the_notes_of_snakemake(project):
    shutil.rmtree(project / ".snakemake")
    require_nothing_to_do(project)


def test_a_clone_that_pulled(project, tmp_path):
    (tmp_path / "remote").mkdir()
    call("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"), at=project)
    commit(project)
    call("dvc", "push", at=project)
    call("git", "clone", "--quiet", str(project), str(tmp_path / "clone"), at=tmp_path)
    clone = tmp_path / "clone"
    shutil.copytree(project / "bin", clone / "bin")
    call("dvc", "pull", at=clone)
    assert not (clone / "data/tiny/patches").exists()  # they are cut again if they are needed
    require_nothing_to_do(clone)
    another_row(clone)
    call("snakemake", at=clone)
    assert sorted(calls(clone)) == sorted(["download", "split", "split", *PER_VARIANT, "report"])
    require_nothing_to_do(clone)


# after a change both do what it takes -------------------------------------------------------------------


def another_row(folder: Path) -> None:
    change_row(folder, TWO[1], head_groups=2)


def change_size(folder: Path) -> None:
    change(
        folder / "configs/datasets/tiny.yaml", lambda dataset: dataset | {"patch": {"size": 64, "overlap": 0}}
    )


def one_more_seed(folder: Path) -> None:
    change(folder / "configs/config.yaml", lambda config: config | {"seeds": [0, 1]})


def a_comment(folder: Path) -> None:
    path = folder / "configs/variants.yaml"
    path.write_text("# Another comment.\n" + path.read_text())


CHANGES = {
    another_row: [*PER_VARIANT, "report"],
    change_size: ["split", "split", *PER_VARIANT[:-1] * 2, "report"],
    one_more_seed: [*PER_VARIANT[:-1] * 2, "report"],
    a_comment: [],
}


@pytest.mark.parametrize("command", EVERYTHING)
@pytest.mark.parametrize(("edit", "jobs"), CHANGES.items())
def test_after_a_change(project, command, edit, jobs):
    edit(project)
    call(*EVERYTHING[command], at=project)
    assert sorted(calls(project)) == sorted(jobs)
    require_nothing_to_do(project)


AS_A_USER = """
import os

of_root = os.access
os.access = lambda path, mode, **options: (
    of_root(path, mode, **options) and (mode != os.W_OK or bool(os.stat(path).st_mode & 0o200))
)
"""


def test_links_that_are_read_only_are_replaced(project, monkeypatch):
    """Root may write to every file; for anybody else Snakemake takes DVC's links for outputs to protect."""
    (project / "bin/sitecustomize.py").write_text(AS_A_USER)
    weights = project / f"results/tiny/{TWO[1]}/train/checkpoint.pth"
    weights.chmod(0o444)
    before = weights.read_text()
    another_row(project)
    monkeypatch.setenv("PYTHONPATH", str(project / "bin"), prepend=os.pathsep)
    call(BIN / "snakemake", at=project)
    assert weights.read_text() != before


def test_results_that_a_wrong_clock_dated(project):
    """They are still made again."""
    for path in (project / "results").rglob("*"):
        os.utime(path, times=(time.time() + 10**6,) * 2)
    another_row(project)
    call("snakemake", at=project)
    assert sorted(calls(project)) == sorted([*PER_VARIANT, "report"])


def test_a_dry_run_changes_nothing(project):
    """Above all beside an active run."""

    def files() -> dict[Path, bytes]:
        places = [project / name for name in ("results", "data", "logs", "dvc.yaml", "dvc.lock")]
        found = [path for place in places for path in ([place] if place.is_file() else place.rglob("*"))]
        return {path: path.read_bytes() for path in found if path.is_file()}

    before = files()
    another_row(project)
    assert "train" in call("snakemake", "--dry-run", at=project)
    assert files() == before


@pytest.mark.parametrize("command", EVERYTHING)
def test_a_result_edited_by_hand_counts_for_what_follows(project, command):
    """The edited file stays; verify names it."""
    path = project / f"results/tiny/{TWO[0]}/merge/Task1_ship.txt"
    path.unlink()  # it may be a link into DVC's cache
    path.write_text("by hand\n")
    call(*EVERYTHING[command], at=project)
    assert calls(project) == ["evaluate", "report"]
    assert path.read_text() == "by hand\n"
    require_nothing_to_do(project)


def test_what_is_asked_for_again_takes_what_follows_along(project):
    call("snakemake", "--forcerun", "merge", at=project)
    assert sorted(calls(project)) == sorted(["merge", "evaluate"] * 2 + ["report"])


def test_other_settings_on_the_command_line_are_not_recorded(project):
    """DVC keeps only what configs/config.yaml asks for."""
    before = (project / "dvc.lock").read_bytes()
    call("snakemake", "--config", "schedule=small-cpu", at=project)
    assert "train" in calls(project)
    assert (project / "dvc.lock").read_bytes() == before
    assert "results/tiny" in call("dvc", "status", at=project)


@pytest.fixture
def own(new, tmp_path) -> Path:
    """A project in which nothing has run, whose configuration asks for images beside it."""
    folder = copied(new, tmp_path / "project")
    for split in ("train", "val"):
        for file in ("images/a.png", "labelTxt/a.txt"):
            path = tmp_path / "pictures" / split / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file)
    own = {"name": "mine", "source": {"folder": "../../../pictures"}, "schedule": "smoke"}
    (folder / "configs/datasets/mine.yaml").write_text(yaml.safe_dump(own))
    change(folder / "configs/config.yaml", lambda config: config | {"dataset": "mine"})
    return folder


def test_images_of_your_own(own, tmp_path):
    """DVC notices edits there, and copies nothing."""
    folder = own
    call("snakemake", at=folder)
    calls(folder)
    require_nothing_to_do(folder)
    assert [dep["path"] for dep in lock(folder)["data@mine"]["deps"]] == [
        *(f"../pictures/{split}/{kind}" for split in ("train", "val") for kind in ("images", "labelTxt")),
        "configs/datasets/mine.yaml",
    ]
    for command, words in EVERYTHING.items():
        (tmp_path / "pictures/val/labelTxt/a.txt").write_text(f"edited before {command}")
        assert "data@mine" in call("dvc", "status", at=folder)
        call(*words, at=folder)
        assert sorted(calls(folder)) == sorted(["split", *["predict", "merge", "evaluate"] * 2, "report"])
        require_nothing_to_do(folder)
    change(folder / "configs/config.yaml", lambda config: config | {"dataset": "tiny"})
    call("snakemake", at=folder)
    require_nothing_to_do(folder)
    assert (folder / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()


def test_dvc_first_on_images_of_your_own(own):
    """It has read dvc.yaml before the folders are in it, and says that it has to be run again."""
    done = tried(*EVERYTHING["dvc"], at=own)
    assert done.returncode == 0 and "run 'dvc repro' once more" in done.stdout + done.stderr
    calls(own)
    again = call(*EVERYTHING["dvc"], at=own)
    assert calls(own) == [] and "once more" not in again
    require_nothing_to_do(own)


# runs that are killed, or meet --------------------------------------------------------------------------


def begun(program: str, *arguments: str, at: Path) -> subprocess.Popen:
    """In a process group of its own, which can be killed: all programs are the real ones."""
    environment = environment_of(at)
    first, *others = environment["PATH"].split(os.pathsep)
    return subprocess.Popen(
        [BIN / program, *arguments],
        cwd=at,
        env=environment | {"PATH": os.pathsep.join([first, str(BIN), *others])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("killed", EVERYTHING)
@pytest.mark.parametrize("then", EVERYTHING)
def test_after_a_killed_run_only_the_rest_is_done(new, tmp_path, killed, then):
    folder = with_stand_ins(copied(new, tmp_path / "project"), MORTAL)
    (folder / "hold").touch()
    run = begun(*EVERYTHING[killed], at=folder)
    wait_for((folder / "trainings").exists)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    (folder / "hold").unlink()
    before = calls(folder)
    call(*EVERYTHING[then], at=folder)
    assert "download" in before and "download" not in calls(folder)
    require_nothing_to_do(folder)


def test_what_snakemake_calls_incomplete_hides_nothing_that_is_missing(project):
    """This happens to a run that is killed after a job has left its results and before Snakemake notices."""
    results = f"results/tiny/{TWO[1]}"
    marked = base64.b64encode(f"{results}/complexity/complexity.json".encode()).decode()
    (project / ".snakemake/incomplete" / marked).write_text("")
    for folder in ("train", "predict", "merge", "evaluate"):
        shutil.rmtree(project / results / folder)
    call("snakemake", at=project)
    assert sorted(calls(project)) == sorted(["train", "predict", "merge", "evaluate", "report"])
    require_nothing_to_do(project)


@pytest.mark.parametrize(
    ("without", "lost"),
    [("complexity", ["train", "predict", "merge", "evaluate"]), ("train", ["predict", "merge", "evaluate"])],
)
def test_a_result_without_its_record_hides_nothing_that_is_missing(project, without, lost):
    """Such a result is left by a run that is killed between writing it and writing its record."""
    results = project / f"results/tiny/{TWO[1]}"
    for folder in lost:
        shutil.rmtree(results / folder)
    for path in [*(project / "results/tiny").glob("leaderboard.*"), *(results / without).glob("*.json")]:
        if path.name.startswith("leaderboard") or path.name.endswith("provenance.json"):
            path.unlink()
    call("snakemake", at=project)
    assert sorted(calls(project)) == sorted([without, *lost, "report"])
    require_nothing_to_do(project)


def lost(project: Path, *folders: str) -> list[str]:
    """Remove results of the second detector; the stages that make them."""
    for folder in folders:
        shutil.rmtree(project / f"results/tiny/{TWO[1]}" / folder)
    return list(folders)


def of_another_branch(project: Path, split: str) -> None:
    record = project / f"data/tiny/patches/{split}.provenance.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"job": "of another branch"}))


def test_patches_of_another_branch_hide_nothing_that_is_missing(project):
    of_another_branch(project, "train")
    missing = lost(project, "predict", "merge", "evaluate")
    call("snakemake", at=project)
    assert sorted({*calls(project), "split"}) == sorted(["split", *missing, "report"])
    require_nothing_to_do(project)


def test_patches_of_another_branch_hide_no_missing_file_that_was_asked_for(project):
    of_another_branch(project, "train")
    checkpoint = project / f"results/tiny/{TWO[1]}/train/checkpoint.pth"
    checkpoint.unlink()
    call("snakemake", str(checkpoint.relative_to(project)), at=project)
    assert calls(project) == ["split", "train"] and checkpoint.exists()


@pytest.mark.parametrize("again", ["asked for", "without its record"])
def test_images_that_are_linked_again_hide_nothing_that_is_missing(project, again):
    """They make nothing run by themselves, since their content is what counts."""
    if again == "without its record":
        (project / "data/tiny/raw.provenance.json").unlink()
    missing = lost(project, "merge", "evaluate")
    call("snakemake", *(["--forcerun", "download"] if again == "asked for" else []), at=project)
    assert sorted(calls(project)) == sorted(["download", *missing, "report"])
    require_nothing_to_do(project)


def test_images_that_are_linked_again_hide_no_change(project):
    another_row(project)
    call("snakemake", "--forcerun", "download", at=project)
    assert sorted(calls(project)) == sorted(["download", *PER_VARIANT, "report"])
    require_nothing_to_do(project)


def test_new_times_make_nothing_of_what_is_missing_run_twice(project):
    missing = lost(project, "predict", "merge", "evaluate")
    for folder in ("data/tiny", f"results/tiny/{TWO[0]}", "configs"):
        for path in (project / folder).rglob("*"):
            os.utime(path)
    call("snakemake", at=project)
    assert sorted(calls(project)) == sorted([*missing, "report"])
    require_nothing_to_do(project)


@pytest.mark.parametrize("also", ["history.csv", "predict/detections.parquet"])
def test_a_checkpoint_that_nobody_needs_is_not_made_again(project, also):
    """Patches that are cut for another detector do not train this one again."""
    for path in ("data/tiny/patches", "data/tiny/raw"):
        shutil.rmtree(project / path)
    of_first = project / f"results/tiny/{TWO[0]}"
    (of_first / "train/checkpoint.pth").unlink()
    next(of_first.glob(f"**/{Path(also).name}")).unlink()
    another_row(project)
    call("snakemake", at=project)
    assert sorted(calls(project)) == sorted(["download", "split", "split", *PER_VARIANT, "report"])
    assert not (of_first / "train/checkpoint.pth").exists()


OF_SECOND = f"results/tiny/{TWO[1]}"


@pytest.mark.parametrize(
    ("options", "without", "due"),
    [
        (
            ["--prioritize", f"{OF_SECOND}/train/checkpoint.pth"],
            ["train"],
            {"download", "split_train", "train"},
        ),
        (["--until", "train"], ["train"], {"download", "split_train", "train"}),
        ([f"../project/{OF_SECOND}/train/checkpoint.pth"], ["train"], {"download", "split_train", "train"}),
        (
            ["--forcerun", f"{OF_SECOND}/predict/detections.parquet"],
            [],
            {"download", "split_test", "predict"},
        ),
        (["--force", f"{OF_SECOND}/predict/detections.parquet"], ["predict"], {"split_test", "predict"}),
        (["--forcerun", "split_train"], [], {"download", "split_train"}),
        (["--forcerun", "merge"], ["predict", "merge"], {"split_test", "predict", "merge", "evaluate"}),
        (["data"], [], {"download", "split_train", "split_test"}),
    ],
)
def test_jobs_that_were_asked_for_get_their_inputs(project, options, without, due):
    """In a clone that pulled, and which has lost some of it."""
    shutil.rmtree(project / "data/tiny")
    lost(project, *without)
    (project / f"{OF_SECOND}/merge.provenance.json").unlink()
    planned = call("snakemake", "--dry-run", *options, at=project)
    assert due <= set(re.findall(r"^rule (\w+):", planned, flags=re.MULTILINE)), planned


def test_scores_are_made_again_where_there_are_no_images(project):
    """As in a clone that pulled: the labels are made, but no patches."""
    shutil.rmtree(project / "data/tiny")
    lost(project, "evaluate")
    call("snakemake", at=project)
    assert calls(project) == ["download", "evaluate", "report"]
    require_nothing_to_do(project)


@pytest.mark.parametrize("second", EVERYTHING)
def test_a_second_run_beside_the_first_is_refused(new, tmp_path, second):
    folder = copied(new, tmp_path / "project")
    (folder / "hold").touch()
    first = begun(*EVERYTHING["snakemake"], at=folder)
    wait_for((folder / "trainings").exists)
    refused = tried(*EVERYTHING[second], at=folder)
    said = [line for line in (refused.stdout + refused.stderr).splitlines() if "is active" in line]
    assert refused.returncode and said == [
        "snakemake: another run on dataset tiny is active in this folder; wait until it ends, or stop it"
    ]
    (folder / "hold").unlink()
    output, _ = first.communicate()
    assert first.returncode == 0, output
    require_nothing_to_do(folder)


# what DVC shows -----------------------------------------------------------------------------------------


def test_images_and_patches_are_not_in_the_cache(both):
    outs = [each["path"] for stage in lock(both["dvc"]).values() for each in stage["outs"]]
    assert outs == ["data/tiny/archives", "results/tiny"]


@pytest.mark.parametrize("by", EVERYTHING)
def test_links_rather_than_copies(both, by):
    """No checkpoint is on the disk twice."""
    weights = both[by] / f"results/tiny/{TWO[0]}/train/checkpoint.pth"
    assert weights.is_symlink() or weights.stat().st_nlink > 1


def lock(folder: Path) -> dict:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def test_git_sees_the_lock_alone(both):
    assert call("git", "status", "--porcelain", at=both["snakemake"]).split() == ["??", "dvc.lock"]


def test_an_experiment(project):
    """As docs/workflow.md shows it: other settings, kept beside the commit."""
    commit(project)
    call(
        "dvc",
        "exp",
        "run",
        "--set-param",
        "configs/config.yaml:seeds=[0,1]",
        "--name",
        "two-seeds",
        at=project,
    )
    assert calls(project).count("train") == 2
    shown = call("dvc", "exp", "show", "--csv", "--only-changed", at=project)
    assert "two-seeds" in shown and "[0, 1]" in shown
    assert "seeds" in call("dvc", "params", "diff", at=project)
    require_nothing_to_do(project)
