from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tiltbox.__main__ import main
from tiltbox.configs import read_yaml
from tiltbox.errors import SettingsError
from tiltbox.settings import schedules, workflow
from tiltbox.settings.workflow import resolve

CONFIG = Path(__file__).resolve().parents[2] / "configs/config.yaml"
SCHEDULE = {
    "processes": 1,
    "batch": 2,
    "epochs": {"xs": 1, "s": 2, "l": 3},
    "base_lr": 0.001,
    "base_batch": 8,
    "warmup_steps": 0,
    "constant_share": 0.5,
}
LEAST = {"dataset": "mini", "variants": ["yoloms-xs-current"]}


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that this machine has this many."""
    return lambda count: monkeypatch.setattr(workflow, "gpus_here", lambda: count)


def test_nothing():
    with pytest.raises(SettingsError, match="dataset: is missing"):
        resolve({})


def test_shipped():
    plan = resolve(read_yaml(CONFIG))
    assert (plan.dataset.name, plan.schedule_name, plan.workflow.track) == ("mini", "mini", True)
    assert list(plan.variants) == read_yaml(CONFIG)["variants"]


def test_paths_of_the_plan():
    plan = resolve(LEAST | {"dataset": "dota"})
    assert plan.train_patches == Path("data/dota/patches/trainval")
    assert plan.test_patches == Path("data/dota/patches/test")
    assert plan.schedule_name == "dota-2gpu"


def test_a_schedule_of_the_users_choice():
    assert resolve(LEAST | {"schedule": "smoke"}).schedule.max_steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datset": "mini"}, "config.yaml: datset: unknown key; did you mean 'dataset'?"),
        ({"dataset": "mnii"}, "unknown dataset 'mnii'; did you mean 'mini'?"),
        ({"dataset": "nowhere/mine.yaml"}, "nowhere/mine.yaml: file not found"),
        ({"dataset": 7}, "config.yaml: dataset: 7 is not accepted"),
        (
            {"variants": ["yoloms-xs-curent"]},
            "config.yaml: variants: unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'?",
        ),
        ({"variants": []}, "config.yaml: variants: [] is not accepted"),
        ({"variants": {"a": 1}}, "config.yaml: variants: {'a': 1} is not accepted"),
        ({"variants": "yoloms-xs"}, "config.yaml: variants: unknown variant 'yoloms-xs'"),
        ({"schedule": "smok"}, "unknown schedule 'smok'; did you mean 'smoke'?"),
        ({"schedule": "mine.yaml"}, "mine.yaml: file not found"),
        ({"gpus": "maybe"}, "config.yaml: gpus: 'maybe' is not accepted"),
        ({"gpus": -1}, "config.yaml: gpus: -1 is not accepted"),
        ({"track": "maybe"}, "config.yaml: track: 'maybe' is not accepted"),
    ],
)
def test_refused(change, message):
    with pytest.raises(SettingsError) as error:
        resolve(LEAST | change)
    assert message in str(error.value)


def test_a_single_variant_needs_no_brackets():
    assert list(resolve(LEAST | {"variants": "yoloms-xs-current"}).variants) == ["yoloms-xs-current"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datset": "mini"}, "--config: datset: unknown key"),
        ({"variants": ["yoloms-xs"]}, "--config: variants: unknown variant 'yoloms-xs'"),
        ({"gpus": "maybe"}, "--config: gpus: 'maybe' is not accepted"),
    ],
)
def test_errors_name_the_command_line_where_it_is_to_blame(change, message):
    with pytest.raises(SettingsError) as error:
        resolve(LEAST | change, overridden=change)
    assert str(error.value).startswith(message)
    with pytest.raises(SettingsError, match=r"^configs/config.yaml: track: 'maybe'"):
        resolve(LEAST | {"track": "maybe"}, "configs/config.yaml", overridden=["dataset"])


def test_a_folder_that_is_not_there(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("{name: mine, source: {folder: nowhere}, schedule: smoke}")
    with pytest.raises(SettingsError, match=rf"mine: source.folder: folder not found: {tmp_path}/nowhere;"):
        resolve(LEAST | {"dataset": str(mine)})
    (tmp_path / "nowhere").mkdir()
    assert resolve(LEAST | {"dataset": str(mine)}).dataset.name == "mine"


@pytest.mark.parametrize(
    ("asked", "here", "schedule", "expected"),
    [
        ("auto", 0, "dota-2gpu", 0),
        ("auto", 2, "dota-2gpu", 2),
        ("auto", 8, "dota-1gpu", 1),
        (0, 8, "dota-2gpu", 0),
        (4, 8, "dota-2gpu", 4),
    ],
)
def test_gpus(gpus, asked, here, schedule, expected):
    gpus(here)
    assert resolve(LEAST | {"gpus": asked, "schedule": schedule}).gpus == expected
    gpus(0)
    assert resolve(LEAST | {"gpus": asked, "schedule": schedule}, gpus=here).gpus == expected


@pytest.mark.parametrize(
    ("asked", "here", "message"),
    [
        ("auto", 1, "gpus: schedule dota-2gpu wants 2 GPUs, but this machine has 1"),
        (2, 0, "gpus: asks for 2, but this machine has 0; choose gpus=0"),
    ],
)
def test_too_few_gpus(gpus, asked, here, message):
    gpus(here)
    with pytest.raises(SettingsError, match=message):
        resolve(LEAST | {"gpus": asked, "schedule": "dota-2gpu"})


def test_remarks(gpus):
    gpus(2)
    assert resolve(LEAST).remarks == []
    assert resolve(LEAST | {"schedule": "dota-1gpu"}).remarks == [
        "patches of 128 px (patch.size of dataset mini) are resized to"
        " 1024 px (image_size of schedule dota-1gpu)"
    ]
    assert resolve(LEAST | {"gpus": 0}).remarks == []  # as asked
    gpus(0)
    assert resolve(LEAST).remarks == ["no GPU found: training on the CPU, with schedule mini"]


@pytest.fixture
def unscheduled(tmp_path) -> str:
    """A dataset file that does not say how to train."""
    (tmp_path / "pictures").mkdir()
    mine = tmp_path / "mine.yaml"
    mine.write_text("{name: mine, source: {folder: pictures}}")
    return str(mine)


@pytest.mark.parametrize(
    ("asked", "here", "used", "base", "weights"),
    [
        ("auto", 0, 0, "small-cpu", False),
        ("auto", 8, 1, "small-gpu", True),  # a set of thousands would start from weights
        (0, 8, 0, "small-cpu", False),
        (2, 8, 2, "small-gpu", True),
    ],
)
def test_a_schedule_that_the_data_will_decide(gpus, unscheduled, asked, here, used, base, weights):
    gpus(here)
    plan = resolve(LEAST | {"dataset": unscheduled, "gpus": asked})
    assert (plan.schedule_name, plan.schedule) == ("auto", schedules.find_schedule(base))
    assert (plan.gpus, plan.needs_weights) == (used, weights)
    assert bool(plan.starting_weights("yoloms-xs-current")) is weights
    assert plan.remarks[-1].startswith(
        "schedule auto: one is chosen when there are patches; logs/mine/VARIANT/"
    )


def test_a_training_depends_on_all_that_may_be_chosen(gpus, unscheduled, monkeypatch):
    gpus(1)
    before = mark(dataset=unscheduled)
    assert before != mark(dataset=unscheduled, schedule="small-gpu")
    find = schedules.find_schedule
    for changed in ("dota-1gpu", "small-gpu", "dota-2gpu"):
        other = find(changed).model_copy(update={"flip": 0.1})
        found = lambda name: other if name == changed else find(name)  # noqa: B023, E731
        monkeypatch.setattr("tiltbox.settings.auto.find_schedule", found)
        assert mark(dataset=unscheduled) != before, changed


@pytest.mark.parametrize("schedule", ["auto", "dota-2gpu"])
def test_the_number_of_gpus_of_a_machine_is_not_a_setting(gpus, unscheduled, schedule):
    """Pulled results are valid on other machines, whatever `gpus: auto` would find there."""
    found = set()
    for here in (0, 2, 8):
        gpus(here)
        found.add(mark(dataset=unscheduled, schedule=schedule))
    assert len(found) == 1
    assert mark(dataset=unscheduled, schedule=schedule, gpus=1) not in found


def mark(**change) -> str:
    return resolve(LEAST | change).depends_on("yoloms-xs-current")


def test_what_a_training_depends_on(gpus):
    gpus(8)
    base = resolve(read_yaml(CONFIG))
    hashes = {name: base.depends_on(name) for name in base.variants}
    assert len(set(hashes.values())) == len(base.variants)
    assert mark() == hashes["yoloms-xs-current"]
    for change in ({"schedule": "smoke"}, {"gpus": 2}, {"dataset": "dota", "schedule": "mini"}):
        assert mark(**change) not in hashes.values()


@pytest.mark.parametrize(
    "change", [{"track": False}, {"gpus": 0}, {"schedule": "mini"}, {"variants": ["yoloms-xs-current"]}]
)
def test_what_a_training_does_not_depend_on(gpus, change):
    gpus(8)
    assert mark(**change) == mark()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"workers": 3}, True),
        ({"epochs": {"xs": 1, "s": 9, "l": 9}}, True),
        ({"epochs": {"xs": 2, "s": 2, "l": 3}}, False),
        ({"batch": 4}, False),
        ({"base_lr": 0.002}, False),
        ({"seed": 1}, True),  # the workflow sets the seeds
        ({"pretrained": False}, False),
    ],
)
def test_keys_of_a_schedule(tmp_path, gpus, change, same):
    gpus(0)
    path = tmp_path / "mine.yaml"
    marks = []
    for content in (SCHEDULE, SCHEDULE | change):
        path.write_text(yaml.safe_dump(content))
        marks.append(mark(schedule=str(path)))
    assert (marks[0] == marks[1]) == same


@pytest.mark.parametrize(
    ("schedule", "key", "same"),
    [
        ("mini", "pretrained", True),  # a schedule that starts from random weights
        ("dota-cpu", "pretrained", False),
        ("mini", "checkpoint", True),
        ("dota-cpu", "checkpoint", True),
        ("mini", "width", False),
    ],
)
def test_keys_of_a_row(monkeypatch, gpus, schedule, key, same):
    gpus(0)
    before = mark(schedule=schedule)
    table = workflow.load_variants()
    other = 0.5 if key == "width" else "elsewhere.pth"
    rows = {name: row.model_copy(update={key: other}) for name, row in table.variants.items()}
    for module in (workflow, schedules):
        monkeypatch.setattr(module, "load_variants", lambda: table.model_copy(update={"variants": rows}))
    assert (mark(schedule=schedule) == before) == same


def test_variants_may_be_given_with_commas(gpus):
    gpus(0)
    names = ["yoloms-xs-current", "yoloms-s-current"]
    assert list(resolve(LEAST | {"variants": ", ".join(names)}).variants) == names
    with pytest.raises(SettingsError, match="unknown variant ''"):
        resolve(LEAST | {"variants": "yoloms-xs-current,"})


def test_a_misspelt_key_is_named_although_the_right_one_is_missing(gpus):
    with pytest.raises(SettingsError, match="datset: unknown key; did you mean 'dataset'"):
        resolve({"datset": "mini", "variants": LEAST["variants"]})


@pytest.mark.parametrize(
    ("given", "seeds"), [(3, (3,)), ([0, 2], (0, 2)), ("0,1,2", (0, 1, 2)), ("5", (5,)), ("1, 0", (1, 0))]
)
def test_seeds(given, seeds):
    plan = resolve(LEAST | {"seeds": given})
    assert plan.workflow.seeds == seeds and len(plan.runs) == len(seeds) * len(plan.variants)


def test_runs_are_variants_and_with_other_seeds_folders_in_them():
    plan = resolve(LEAST | {"seeds": [0, 7], "variants": "yoloms-xs-current"})
    assert plan.runs == ["yoloms-xs-current", "yoloms-xs-current/seed-7"] == plan.runs_of("yoloms-xs-current")
    assert resolve(LEAST).workflow.seeds == (0,)


@pytest.mark.parametrize("seeds", [[], [-1], "0,x", [0, 0], 2**31, 0.5, "", None])
def test_texts_that_are_not_seeds(seeds):
    with pytest.raises(SettingsError, match=r"--config: seeds"):
        resolve(LEAST | {"seeds": seeds}, overridden=["seeds"])


def test_a_training_depends_on_its_seed():
    plan = resolve(LEAST)
    name = next(iter(plan.variants))
    assert plan.depends_on(name, 0) != plan.depends_on(name, 1)


@pytest.fixture
def validating(monkeypatch):
    """Make the schedule of the dataset hold out a share, or validate less often."""

    def use(**validation):
        own = schedules.find_schedule("mini")
        changed = own.model_copy(update={"validation": schedules.Validation(**validation)})
        monkeypatch.setattr("tiltbox.settings.workflow.find_schedule", lambda name: changed)

    return use


def test_a_training_does_not_depend_on_how_it_is_scored_on_the_way(validating):
    before = mark(dataset="mini")
    validating(every=1, patches=7)
    assert mark(dataset="mini") == before
    validating(share=0.2)
    held_out = mark(dataset="mini")
    validating(share=0.2, every=1)
    assert mark(dataset="mini") == held_out
    validating(share=0.2, patience=3)
    assert len({before, held_out, mark(dataset="mini")}) == 3


def test_when_the_test_split_is_used_on_the_way(validating):
    assert resolve(LEAST | {"dataset": "mini"}).validates
    assert not resolve(LEAST | {"dataset": "dota", "gpus": 0}).validates, "its test split has no labels"
    for validation in ({"share": 0.2}, {"every": 0}):
        validating(**validation)
        assert not resolve(LEAST | {"dataset": "mini"}).validates


def test_a_seed_of_the_schedule_that_is_not_used_is_remarked(tmp_path):
    content = yaml.safe_load((CONFIG.parent / "schedules/smoke.yaml").read_text()) | {"seed": 5}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    own = {"schedule": str(tmp_path / "own.yaml")}
    assert any("seed 5 of schedule" in remark for remark in resolve(LEAST | own).remarks)
    assert not any("seed 5" in remark for remark in resolve(LEAST | own | {"seeds": [5]}).remarks)


def test_a_set_that_is_tested_on_what_it_trains_on_is_remarked(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True), (tmp_path / "train/labelTxt").mkdir()
    own = {"name": "same", "source": {"folder": "."}, "train_splits": ["train"], "test_split": "train"}
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(own))
    remarks = resolve(LEAST | {"dataset": str(tmp_path / "same.yaml")}).remarks
    assert "tests on 'train', which it trains on" in remarks[0]


def test_two_dataset_files_of_one_name(tmp_path, monkeypatch):
    """A second one is refused while the first one exists; the same one, moved or not, is accepted."""
    shutil.copytree(CONFIG.parent, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        for folder in ("train/images", "train/labelTxt", "val/images", "val/labelTxt"):
            (tmp_path / name / folder).mkdir(parents=True)
        for split in ("train", "val"):
            cv2.imwrite(str(tmp_path / name / split / "images/P1.png"), np.zeros((64, 64, 3), np.uint8))
            (tmp_path / name / split / "labelTxt/P1.txt").write_text("0 0 9 0 9 5 0 5 ship 0\n")
        own = {"name": "harbours", "source": {"folder": name}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(own))
    assert main(["download", "a.yaml", "--out", "data/harbours/raw"]) == 0
    assert resolve(LEAST | {"dataset": "a.yaml"}).dataset.name == "harbours"
    message = (
        r"b\.yaml: name: 'harbours' is also the name of a\.yaml, whose data and results would be replaced"
    )
    with pytest.raises(SettingsError, match=message):
        resolve(LEAST | {"dataset": "b.yaml"})
    (tmp_path / "a.yaml").rename(tmp_path / "c.yaml")
    assert resolve(LEAST | {"dataset": "c.yaml"}).dataset.name == "harbours"
    assert resolve(LEAST | {"dataset": "b.yaml"}).dataset.name == "harbours"
