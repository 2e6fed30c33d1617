from __future__ import annotations

import pytest
import torch

from tiltbox.errors import CheckpointError
from tiltbox.model.checkpoint import read_checkpoint, save_checkpoint
from tiltbox.settings import schedules
from tiltbox.settings.schedules import find_schedule
from tiltbox.settings.variants import load_variants
from tiltbox.stages.weights import weights

NAME = "yoloms-xs-current"


@pytest.fixture
def variant(monkeypatch, tmp_path, serve):
    """A row whose weights are to be had at an address of which nobody has a copy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    table = load_variants().model_copy(update={"weights": serve(tmp_path / "web")})
    monkeypatch.setattr(schedules, "load_variants", lambda: table)
    return table.variants[NAME].model_copy(update={"pretrained": "coco_xs.pth"})


def test_random_weights_need_nothing(variant):
    assert weights(variant, find_schedule("mini")) is None
    bare = variant.model_copy(update={"pretrained": None})
    assert weights(bare, find_schedule("dota-2gpu")) is None


def test_fetched_once_then_used_without_a_connection(variant, tmp_path):
    save_checkpoint(tmp_path / "web/coco_xs.pth", {"w": torch.ones(3)}, {})
    copy = weights(variant, find_schedule("dota-2gpu"))
    assert copy.is_relative_to(tmp_path / "cache")
    (tmp_path / "web/coco_xs.pth").unlink()
    assert weights(variant, find_schedule("dota-2gpu")) == copy
    assert read_checkpoint(copy)[0]["w"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be downloaded"),
        (b"<!DOCTYPE html><p>Sign in</p>", "cannot be downloaded .*page"),
        (b"torn", "is no readable checkpoint .*; delete it"),
    ],
)
def test_what_is_no_checkpoint_is_noticed_before_the_training(variant, tmp_path, content, problem):
    if content:
        (tmp_path / "web/coco_xs.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=problem):
        weights(variant, find_schedule("dota-2gpu"))
