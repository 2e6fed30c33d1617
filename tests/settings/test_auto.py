"""What ``schedule: auto`` chooses."""

from __future__ import annotations

import pytest

from tiltbox.settings.auto import TrainingData, before_the_data, choose, fitting_gpus, for_prediction
from tiltbox.settings.schedules import OTHERS, find_schedule


def chosen(patches: int = 500, gpus: int = 0, size: int = 512, side: float = 20.0):
    return choose(TrainingData(patches, 2 * patches, size, side), gpus)


@pytest.mark.parametrize(
    ("patches", "gpus", "name"),
    [
        (1, 0, "small-cpu"),
        (500, 0, "small-cpu"),
        (12_800, 0, "small-cpu"),  # the published recipe would take weeks there
        (500, 1, "small-gpu"),
        (500, 4, "small-gpu"),
        (3999, 1, "small-gpu"),
        (4000, 1, "dota-1gpu"),
        (12_800, 2, "dota-2gpu"),
        (12_800, 8, "dota-2gpu"),
    ],
)
def test_the_recipe(patches, gpus, name):
    schedule, line = chosen(patches, gpus, size=1024)
    rest = {"epochs", "image_size"}
    assert schedule.model_dump(exclude=rest) == find_schedule(name).model_dump(exclude=rest)
    epochs = schedule.epochs[OTHERS]
    assert line.startswith(f"schedule auto: {name}, {epochs} epochs at {schedule.image_size} px")


def test_the_published_recipe_stays_as_it_is():
    assert chosen(12_800, 2, size=1024)[0] == find_schedule("dota-2gpu")


@pytest.mark.parametrize(("patches", "epochs"), [(1, 100), (48, 100), (500, 10), (1200, 4), (10**6, 4)])
def test_as_many_steps_for_few_images_as_for_many(patches, epochs):
    schedule, _ = chosen(patches)
    assert schedule.epochs == {OTHERS: epochs}


@pytest.mark.parametrize(("gpus", "processes", "epochs"), [(1, 1, 96), (2, 1, 96), (0, 1, 10), (0, 2, 20)])
def test_as_many_steps_on_two_gpus_as_on_one(gpus, processes, epochs):
    """GPUs share the images of a step; processes of a CPU each have their own."""
    schedule, _ = choose(TrainingData(500, 1000, 512, 40.0), gpus, processes)
    assert schedule.epochs == {OTHERS: epochs}


@pytest.mark.parametrize(
    ("gpus", "size", "side", "expected"),
    [
        (0, 512, 20.0, 320),  # the median object keeps 12 px
        (0, 512, 40.0, 160),
        (0, 512, 400.0, 128),
        (0, 512, 5.0, 512),  # never enlarged
        (0, 100, 5.0, 96),
        (0, 2048, 10.0, 1024),
        (0, 512, 0.0, 512),
        (1, 512, 40.0, 512),
        (1, 2048, 40.0, 1024),
        (1, 40, 40.0, 64),
    ],
)
def test_image_size(gpus, size, side, expected):
    schedule, _ = chosen(gpus=gpus, size=size, side=side)
    assert schedule.image_size == expected


@pytest.mark.parametrize(("gpus", "device"), [(0, "no GPU"), (1, "1 GPU"), (3, "3 GPUs")])
def test_the_line_says_why(gpus, device):
    _, line = chosen(1480, gpus)
    assert line.endswith(f"for 1,480 patches with 2,960 objects and {device}")


def test_before_there_are_data():
    assert before_the_data(0) == find_schedule("small-cpu")
    assert before_the_data(2) == find_schedule("small-gpu")
    assert (for_prediction().image_size, for_prediction().threads) == (1024, None)  # of published weights


def test_processes_share_the_steps():
    data = TrainingData(500, 1000, 512, 20.0)
    assert choose(data, 0, processes=2)[0].epochs == {OTHERS: 20}


@pytest.mark.parametrize(
    ("patches", "here", "expected"),
    [(0, 0, 0), (0, 8, 1), (3999, 8, 1), (4000, 0, 0), (4000, 1, 1), (4000, 8, 2)],
)
def test_as_many_gpus_as_the_recipe_is_for(patches, here, expected):
    assert fitting_gpus(patches, here) == expected
