"""What a training depends on, which Snakemake and a training that may resume must see alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images.pixels import write_png
from tiltbox.model.variants import find_variant
from tiltbox.settings import dependencies
from tiltbox.settings.schedules import Schedule, find_schedule
from tiltbox.settings.workflow import resolve
from tiltbox.stages.split import split
from tiltbox.stages.train import train
from tiltbox.training.config import read_config

NAME = "yoloms-xs-current"
VARIANT = find_variant(NAME)
PLAIN = find_schedule("smoke").model_dump(mode="json") | {"max_steps": None}
EPOCHS = PLAIN["epochs"]
OTHER = {
    "processes": 2,
    "batch": 3,
    "images_at_once": 2,
    "epochs": EPOCHS | {"xs": 7},
    "max_steps": 9,
    "image_size": 192,
    "early_scale": 0.5,
    "early_share": 0.25,
    "base_lr": 0.5,
    "base_batch": 3,
    "muon_lr": 0.5,
    "weight_decay": 0.5,
    "warmup_steps": 3,
    "warmup_start": 0.5,
    "constant_share": 0.25,
    "decay": "linear",
    "final_share": 0.25,
    "ema_momentum": 0.5,
    "ema_warmup": 3,
    "flip": 0.25,
    "rotate": 0.25,
    "mosaic": 0.25,
    "mosaic_share": 0.25,
    "background": True,
    "objective": {"focus": 1.0},
    "validation": {"every": 1, "share": 0.5},
    "pretrained": True,
    "threads": 3,
    "deterministic": True,
    "precision": "float16",
    "cuda_graphs": False,
    "checkpoint_minutes": 3,
    "workers": 3,
    "seed": 3,
}
NOT_COUNTED = ("checkpoint_minutes", "cuda_graphs", "workers")
BY_THE_WORKFLOW = ("seed",)  # which it sets itself, whatever the schedule says


def schedule(**changes: object) -> Schedule:
    return Schedule.model_validate(PLAIN | changes)


def settings_of(**changes: object) -> list[dict]:
    return dependencies.training(VARIANT, DOTA_V1_CLASSES, [schedule(**changes)], None)


def test_every_key_is_tried_here():
    assert OTHER.keys() == Schedule.model_fields.keys()
    assert [key for key, value in OTHER.items() if PLAIN[key] == value] == []


@pytest.mark.parametrize("key", [key for key in OTHER if key != "pretrained"])
def test_what_counts(key):
    assert (settings_of(**{key: OTHER[key]}) == settings_of()) == (key in NOT_COUNTED)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"epochs": EPOCHS | {"s": 9, "l": 9}}, True),
        ({"epochs": {"xs": EPOCHS["others"]}}, True),
        ({"validation": {"every": 1, "patches": 7}}, True),
        ({"validation": {"every": 1, "share": 0.2}}, False),
    ],
)
def test_parts_of_keys(change, same):
    assert (settings_of(**change) == settings_of()) == same


def test_how_often_to_validate_counts_only_if_it_decides():
    held_out = [{"share": 0.2, "every": every} for every in (1, 2)]
    one, two = (settings_of(validation=each) for each in held_out)
    assert one == two
    one, two = (settings_of(validation=each | {"patience": 3}) for each in held_out)
    assert one != two


def test_weights_and_classes():
    def found(classes: tuple[str, ...] = DOTA_V1_CLASSES, start: str | None = None) -> list[dict]:
        return dependencies.training(VARIANT, classes, [schedule()], start)

    assert found(start="a.pth") != found() != found(classes=DOTA_V1_CLASSES[::-1])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"series": "another"}, True),
        ({"compared_with": ("yoloms-s-current",)}, True),
        ({"checkpoint": "another.pth"}, True),
        ({"pretrained": "another.pth"}, True),  # what counts is where the training starts
        ({"width": 0.5}, False),
    ],
)
def test_keys_of_a_row(change, same):
    other = VARIANT.model_copy(update=change)
    assert (dependencies.training(other, DOTA_V1_CLASSES, [schedule()], None) == settings_of()) == same


class Begun(Exception):
    """In place of the processes that would train."""


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> Path:
    """Labelled patches of two images."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("patches") / "train"
    for name in ("images", "labelTxt"):
        (source / name).mkdir()
    for name in ("P1", "P2"):
        write_png(source / f"images/{name}.png", np.full((64, 64, 3), 80, np.uint8))
        (source / f"labelTxt/{name}.txt").write_text("0 0 9 0 9 5 0 5 ship 0\n")
    split([source], out, size=64, overlap=16, workers=1)
    return out


@pytest.fixture
def views(patches, tmp_path, monkeypatch):
    """The hashes by which Snakemake and a training that may resume recognise a training."""

    def begin(*_: object, **__: object) -> None:
        raise Begun

    monkeypatch.setattr("tiltbox.stages.train._launch", begin)
    monkeypatch.setattr("tiltbox.stages.train.require_weights", lambda *_: None)

    def see(**changes: object) -> tuple[str, str]:
        file = tmp_path / "own.yaml"
        file.write_text(yaml.safe_dump(PLAIN | changes))
        plan = resolve({"dataset": "mini", "variants": NAME, "schedule": str(file), "gpus": 0})
        out = tmp_path / "-".join(["train", *changes])
        with pytest.raises(Begun):
            train(NAME, VARIANT, schedule(**changes), patches, out, gpus=0, seed=0)
        return plan.depends_on(NAME), read_config(out / "work/config.py").fingerprint

    return see


@pytest.mark.parametrize("key", OTHER)
def test_snakemake_and_a_resuming_training_see_the_same_changes(key, views):
    before, after = views(), views(**{key: OTHER[key]})
    same = key in (*NOT_COUNTED, *BY_THE_WORKFLOW)
    assert [old == new for old, new in zip(before, after, strict=True)] == [same, same]
