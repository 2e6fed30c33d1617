from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tiltbox.errors import SettingsError
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import OTHERS, find_schedule, gpus_to_use

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = sorted(path.stem for path in (CONFIGS / "schedules").glob("*.yaml"))
LEAST = {
    "processes": 1,
    "batch": 2,
    "epochs": {"xs": 1, "s": 2, "l": 3},
    "base_lr": 0.001,
    "base_batch": 8,
    "warmup_steps": 0,
    "constant_share": 0.5,
}


def find(tmp_path: Path, content: dict):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return find_schedule(str(path))


def test_nothing(tmp_path):
    with pytest.raises(SettingsError, match="processes: is missing"):
        find(tmp_path, {"seed": 1})


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(7, 7), ({"l": 3, "others": 6}, 6), ({"xs": 9, "others": 6}, 9), ({"xs": 9}, 9)],
)
def test_epochs_of_a_size(tmp_path, epochs, expected):
    schedule = find(tmp_path, LEAST | {"epochs": epochs})
    assert schedule.epochs_of(find_variant("yoloms-xs-current")) == expected


def test_a_size_without_epochs(tmp_path):
    schedule = find(tmp_path, LEAST)
    with pytest.raises(SettingsError, match=r"epochs: gives no number for size tiny \(only for l, s, xs\)"):
        schedule.epochs_of(find_variant("rtmdet-r-tiny"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name):
    assert find_schedule(name, CONFIGS) == find_schedule(str(CONFIGS / "schedules" / f"{name}.yaml"))


def test_shipped_are_those_that_datasets_and_documents_name():
    named = {"dota-2gpu", "dota-1gpu", "dota-cpu", "small-cpu", "small-gpu", "mini", "smoke"}
    assert named <= set(SHIPPED)


@pytest.mark.parametrize(
    ("processes", "batch", "rate"),
    [(1, 8, 0.001), (2, 4, 0.001), (1, 4, 0.0005), (4, 8, 0.004), (1, 1, 0.000125)],
)
def test_learning_rate_grows_with_the_images_of_a_step(tmp_path, processes, batch, rate):
    schedule = find(tmp_path, LEAST | {"processes": processes, "batch": batch})
    assert schedule.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("name", "rate"), [("dota-2gpu", 0.004 / 16), ("dota-1gpu", 0.004 / 16), ("dota-cpu", 0.004 / 64)]
)
def test_learning_rate_of_the_published_recipe(name, rate):
    """0.004 at 16 times the batch, on two GPUs; by the rule elsewhere."""
    assert find_schedule(name, CONFIGS).learning_rate == pytest.approx(rate)


def test_published_recipe():
    schedule = find_schedule("dota-2gpu", CONFIGS)
    assert (schedule.processes, schedule.batch, schedule.image_size) == (2, 4, 1024)
    assert schedule.epochs == {OTHERS: 36}
    assert (schedule.weight_decay, schedule.ema_momentum, schedule.final_share) == (0.05, 0.0002, 0.05)
    assert schedule.pretrained and schedule.flip == 0.75 and schedule.rotate == 0.5


@pytest.mark.parametrize("name", ["dota-1gpu", "dota-cpu"])
def test_smaller_machines_warm_up_over_as_many_images(name):
    full, small = find_schedule("dota-2gpu", CONFIGS), find_schedule(name, CONFIGS)
    images = [each.warmup_steps * each.processes * each.batch for each in (full, small)]
    assert images[0] == images[1]


@pytest.mark.parametrize(
    ("gpus", "batch", "rate", "warmup", "momentum"),
    [
        (1, 8, 2.5e-4, 1000, 2e-4),
        (2, 4, 2.5e-4, 1000, 2e-4),
        (4, 2, 2.5e-4, 1000, 2e-4),
        (8, 1, 2.5e-4, 1000, 2e-4),
        (3, 3, 2.5e-4 * 9 / 8, 889, 2.25e-4),
        (16, 1, 5e-4, 500, 4e-4),
    ],
)
def test_gpus_share_the_images_of_a_step(gpus, batch, rate, warmup, momentum):
    """As the recipe says if they can be shared evenly; if not, all three that depend on it are scaled."""
    found = find_schedule("dota-2gpu", CONFIGS).on(gpus, cuda=True)
    assert (found.processes, found.batch, found.warmup_steps) == (gpus, batch, warmup)
    assert found.learning_rate == pytest.approx(rate)
    assert found.ema_momentum == pytest.approx(momentum)


def test_one_gpu_has_the_recipe_of_two():
    two, one = (find_schedule(name, CONFIGS) for name in ("dota-2gpu", "dota-1gpu"))
    assert two.on(1, cuda=True) == one


def test_processes_of_a_cpu_keep_their_images():
    """Their batch norms do not see each other's."""
    schedule = find_schedule("small-cpu", CONFIGS)
    found = schedule.on(2, cuda=False)
    assert (found.processes, found.batch) == (2, schedule.batch)
    assert found.learning_rate == 2 * schedule.learning_rate
    assert found.muon_learning_rate == 2 * schedule.muon_learning_rate
    assert (found.warmup_steps, found.ema_warmup) == (schedule.warmup_steps / 2, schedule.ema_warmup / 2)
    assert found.ema_momentum == 2 * schedule.ema_momentum
    assert schedule.on(1, cuda=False) == schedule


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": 5, "warmup_steps": 6}, "warmup_steps is larger than max_steps"),
        ({"max_steps": 0}, "max_steps: 0 is not accepted"),
        ({"image_size": 100}, "image_size: 100 is not accepted"),
        ({"epochs": {}}, "epochs: {} is not accepted"),
        ({"epochs": {"sx": 1, "others": 2}}, "epochs.sx: 'sx' is not accepted (Input should be 'n', 'tiny',"),
        ({"epochs": "many"}, "epochs: 'many' is not accepted"),
        ({"epochs": 0}, "epochs: 0 is not accepted"),
        ({"epochs": {"xs": 0, "s": 1, "l": 1}}, "epochs.xs: 0 is not accepted"),
        ({"base_lr": -1}, "base_lr: -1 is not accepted"),
        ({"base_lr": "fast"}, "base_lr: 'fast' is not accepted"),
        ({"constant_share": 1.5}, "constant_share: 1.5 is not accepted"),
        ({"ema_momentum": 1}, "ema_momentum: 1 is not accepted"),
        ({"objective": {"least_side": 8}}, "objective: least_side is only for assigner: task-aligned"),
        ({"objective": {"assigner": "atss"}}, "objective.assigner: 'atss' is not accepted"),
        ({"early_scale": 0.5, "early_share": 1}, "early_share: 1 never shows images in full size"),
        (
            {"max_steps": 5, "validation": {"share": 0.1, "patience": 2}},
            "validation needs epochs, which max_steps does not have",
        ),
        ({"mosaic": 2}, "mosaic: 2 is not accepted"),
        ({"validation": {"every": -1}}, "validation.every: -1 is not accepted"),
        ({"validation": {"patience": 3}}, "validation: patience needs held-out images to decide by"),
        ({"validation": {"checkpoint": "best"}}, "validation: checkpoint: best needs held-out images"),
        (
            {"validation": {"share": 0.1, "every": 0}},
            "validation: share holds out images that are never used",
        ),
        ({"decay": "sudden"}, "decay: 'sudden' is not accepted"),
        ({"batchsize": 4}, "batchsize: unknown key; did you mean 'batch'?"),
    ],
)
def test_refused(tmp_path, change, message):
    with pytest.raises(SettingsError) as error:
        find(tmp_path, LEAST | change)
    assert f"mine.yaml: {message}" in str(error.value)


def test_warm_up_may_take_all_steps(tmp_path):
    assert find(tmp_path, LEAST | {"max_steps": 5, "warmup_steps": 5}).max_steps == 5


def test_unknown():
    with pytest.raises(SettingsError, match=r"unknown schedule 'smok'; did you mean 'smoke'\?"):
        find_schedule("smok", CONFIGS)
    with pytest.raises(SettingsError, match=r"nowhere/mine\.yaml: file not found"):
        find_schedule("nowhere/mine.yaml")


@pytest.mark.parametrize(
    ("asked", "here", "processes", "expected"),
    [(None, 0, 2, 0), (None, 2, 2, 2), (None, 8, 2, 2), (None, 8, 1, 1), (0, 8, 2, 0), (4, 8, 2, 4)],
)
def test_gpus_to_use(tmp_path, asked, here, processes, expected):
    schedule = find(tmp_path, LEAST | {"processes": processes})
    assert gpus_to_use(schedule, asked, here, option="--gpus ") == expected


@pytest.mark.parametrize(
    ("asked", "here", "option", "message"),
    [
        (
            None,
            1,
            "gpus=",
            "gpus: schedule mine wants 2 GPUs, but this machine has 1;"
            " choose another schedule (such as dota-1gpu), gpus=1 or gpus=0",
        ),
        (2, 0, "gpus=", "gpus: asks for 2, but this machine has 0; choose gpus=0"),
        (3, 2, "--gpus ", "--gpus: asks for 3, but this machine has 2; choose --gpus 2"),
    ],
)
def test_too_few_gpus(tmp_path, asked, here, option, message):
    with pytest.raises(SettingsError) as error:
        gpus_to_use(find(tmp_path, LEAST | {"processes": 2}), asked, here, option=option, name="mine")
    assert str(error.value) == message


def test_images_of_a_single_cell_cannot_be_trained_on(tmp_path):
    """Batch norm fails where the coarsest features of an image are one value."""
    content = yaml.safe_load((CONFIGS / "schedules/smoke.yaml").read_text()) | {"image_size": 32}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=r"own\.yaml: image_size: .*64"):
        find_schedule(str(tmp_path / "own.yaml"))
    assert (
        find_schedule("small-cpu").model_copy(update={"image_size": 64, "early_scale": 0.3}).early_size == 64
    )
