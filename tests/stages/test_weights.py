from __future__ import annotations

import pytest
import torch

from tiltbox.__main__ import main
from tiltbox.errors import CheckpointError
from tiltbox.model.checkpoint import read_checkpoint, save_checkpoint
from tiltbox.model.variants import load_variants
from tiltbox.settings import schedules
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages import weights as stage
from tiltbox.stages.weights import require_weights, weights, weights_at_hand

NAME = "yoloms-xs-current"
WITHOUT = (
    r"train from random weights with --schedule small-gpu, or small-cpu .* --config schedule=small-gpu\)$"
)


@pytest.fixture
def variant(monkeypatch, tmp_path, serve):
    """A row with weights at an address without a local copy."""
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
        (None, "the server answers 404"),
        (b"<!DOCTYPE html><p>Sign in</p>", "is a web page"),
        (b"torn", "is damaged or another kind of file: it starts with 'torn'"),
        (b"\x80torn", "is not a readable checkpoint .*; delete it, so that http://.* is downloaded again"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_noticed_before_the_training(variant, tmp_path, content, problem):
    if content:
        (tmp_path / "web/coco_xs.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{problem}.*, or {WITHOUT}"):
        weights(variant, find_schedule("dota-2gpu"))


def test_weights_that_may_not_be_needed(variant, tmp_path, monkeypatch, caplog):
    """They are downloaded if possible; if not, there is only a warning."""
    monkeypatch.setattr(stage, "load_variants", schedules.load_variants)
    assert weights_at_hand(variant) is None
    assert "answers 404" in caplog.text and caplog.text.rstrip().endswith("will say what to do")
    save_checkpoint(tmp_path / "web/coco_xs.pth", {"w": torch.ones(3)}, {})
    assert weights_at_hand(variant).is_relative_to(tmp_path / "cache")
    assert weights_at_hand(variant.model_copy(update={"pretrained": None})) is None


def test_a_file_of_the_users_own(tmp_path):
    """Without an address, the message does not mention the network."""
    with pytest.raises(CheckpointError, match=r"none\.pth: checkpoint not found; check the path$"):
        require_weights(str(tmp_path / "none.pth"), "give a file with --start FILE")


def test_the_command_without_a_network(monkeypatch, tmp_path, capsys, closed):
    """One line that names the address, what is wrong, and what to do."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    table = load_variants().model_copy(update={"weights": closed})
    monkeypatch.setattr(schedules, "load_variants", lambda: table)
    assert main(["weights", NAME, "--schedule", "dota-2gpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    address = f"{closed}/{table.variants[NAME].pretrained}"
    assert line.startswith(f"tiltbox weights: {address}: cannot be reached (Connection refused); ")
    assert str(tmp_path / "cache") in line and "--schedule small-gpu" in line
    assert "--start" not in line  # this command does not have it
