"""Scores during training are right, the best weights are kept, and trainings continue or end properly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiltbox.dota.labels import read_labels
from tiltbox.errors import CheckpointError, DataError, TrainingError
from tiltbox.geometry.boxes import qbox_to_rbox
from tiltbox.model.compat import import_openmmlab
from tiltbox.records import PatchManifest

import_openmmlab()
from tiltbox.training import validation as module  # noqa: E402
from tiltbox.training.best import best_epoch, kept_weights  # noqa: E402
from tiltbox.training.validation import Scores, Validation, score_patches  # noqa: E402
from tiltbox.training.validation_patches import (  # noqa: E402
    chosen,
    images_held_out,
    patches_to_validate,
    without,
)

CLASSES = ("plane", "ship")
SQUARE = "10 10 20 10 20 20 10 20"
LINES = {"A__64__0___0": f"{SQUARE} ship 0\n", "A__64__0___40": "", "B__64__0___0": f"{SQUARE} plane 0\n"}


@pytest.fixture
def patches(tmp_path) -> Path:
    """Three patches of two images with two objects."""
    (tmp_path / "patches/annfiles").mkdir(parents=True)
    for name, lines in LINES.items():
        (tmp_path / "patches/annfiles" / f"{name}.txt").write_text(lines)
    return tmp_path / "patches"


def found(*rows: tuple[str, str, float]) -> dict[str, np.ndarray]:
    """The output of a detector that puts the square where it is told to: (patch, class, score)."""
    square = qbox_to_rbox([[float(number) for number in SQUARE.split()]])
    return {
        "patch": np.array([row[0] for row in rows], dtype=object),
        "label": np.array([CLASSES.index(row[1]) for row in rows], dtype=np.int64),
        "score": np.array([row[2] for row in rows], dtype=np.float32),
        "rboxes": np.repeat(square, len(rows), axis=0).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("rows", "ap50"),
    [
        ([("A__64__0___0", "ship", 0.9), ("B__64__0___0", "plane", 0.8)], 1.0),
        ([("A__64__0___0", "ship", 0.9)], 0.5),  # of two classes
        ([("A__64__0___40", "ship", 0.9), ("A__64__0___0", "ship", 0.8)], 0.25),  # precision is 1/2
        ([], 0.0),
    ],
)
def test_scores_of_patches(patches, rows, ap50):
    labels = {name: read_labels(patches / "annfiles" / f"{name}.txt", CLASSES) for name in LINES}
    assert score_patches(found(*rows), labels, CLASSES).ap(0.5) == pytest.approx(ap50)


def test_patches_are_spread_over_all(patches):
    assert [path.stem for path in patches_to_validate(patches, 2)] == ["A__64__0___0", "B__64__0___0"]
    assert len(patches_to_validate(patches, 10)) == 3
    assert [path.stem for path in patches_to_validate(patches, 9, ["B"])] == ["B__64__0___0"]


def test_patches_without_labels(tmp_path):
    with pytest.raises(DataError, match="contains no labelled patches to validate on"):
        patches_to_validate(tmp_path, 5)


def test_whole_images_are_held_out(patches):
    (held,) = images_held_out(patches, 0.5)
    assert held in ("A", "B")
    assert images_held_out(patches, 0) == []


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 5), (0.99, 19)])
def test_some_images_are_held_out_and_some_are_left(share, count):
    names = [f"P{number}" for number in range(20)]
    held = chosen(names, share)
    assert len(held) == count and set(held) <= set(names)
    assert chosen(reversed(names), share) == held


def test_images_held_out_must_show_something(patches):
    manifest = PatchManifest(
        size=64, overlap=0, rates=(1.0,), iof=0.7, labelled=True, images=2, patches=3, empty_patches=1,
        objects=2, objects_in_patches=2, contents="",
    )  # fmt: skip
    left = without(manifest, patches, ["B"], CLASSES)
    assert (left.images, left.patches, left.empty_patches, left.objects_in_patches) == (1, 2, 1, 1)
    (patches / "annfiles/B__64__0___0.txt").write_text(f"{SQUARE} plane 1\n")
    with pytest.raises(DataError, match=r"held out of it for validation \(B, …\) contain no objects"):
        without(manifest, patches, ["B"], CLASSES)


def test_one_image_cannot_be_held_out(patches):
    (patches / "annfiles/B__64__0___0.txt").unlink()
    with pytest.raises(DataError, match="one image only"):
        images_held_out(patches, 0.5)


@pytest.fixture
def validate(patches, tmp_path, monkeypatch):
    """Validate as a training does, with a detector that finds what it is told to find."""
    settings = {"patches": str(patches), "most": 10, "images": None, "every": 1, "patience": None}
    settings |= {"checkpoint": "last", "image_size": 64, "batch": 2, "classes": CLASSES}
    model = torch.nn.Linear(1, 1)
    model.register_buffer("means", torch.zeros(3))
    runner = SimpleNamespace(model=model, hooks=[])

    def run(rows, epoch: int, **changes) -> Scores | None:
        validation._settings = settings | changes

        def detect(model, images, **_):
            assert not model.training and [path.suffix for path in images] == [".png"] * 3
            if isinstance(rows, Exception):
                raise rows
            return found(*rows)

        monkeypatch.setattr(module, "detect_patches", detect)
        model.weight.data.fill_(epoch)
        scores = validation.after_epoch(runner, epoch)
        assert model.training
        return scores

    validation = Validation(settings, tmp_path)
    run.of = validation
    return run


ALL = [("A__64__0___0", "ship", 0.9), ("B__64__0___0", "plane", 0.8)]
HALF, NONE = ALL[:1], []


def test_the_weights_of_the_best_epoch_are_kept(validate, tmp_path, caplog):
    caplog.set_level("INFO", "tiltbox")
    for epoch, rows in enumerate([NONE, ALL, HALF, ALL], start=1):
        validate(rows, epoch)
    assert [path.name for path in kept_weights(tmp_path)] == ["best_1.pth", "best_2.pth"]
    assert torch.load(tmp_path / "best_2.pth")["state_dict"]["weight"].item() == 2
    assert caplog.messages[1].startswith(
        "validation after epoch 2: AP50 100.00, mAP 100.00, on 3 patches in "
    )


def test_all_processes_score_what_the_first_one_saves(validate, monkeypatch):
    """Without GPUs each has seen other images, so its running means and variances differ."""
    sent = []
    monkeypatch.setattr(module, "broadcast", lambda buffer: sent.append(buffer.shape))
    validate(ALL, 1)
    assert sent == [(3,)]


def test_no_more_than_two_are_kept(validate, tmp_path):
    for epoch, rows in enumerate([NONE, HALF, ALL], start=1):
        validate(rows, epoch)
    assert [path.name for path in kept_weights(tmp_path)] == ["best_2.pth", "best_3.pth"]


def test_a_training_gives_up_after_its_patience(validate):
    said = []
    for epoch, rows in enumerate([HALF, NONE, ALL, HALF, ALL], start=1):
        validate(rows, epoch, patience=2)
        said.append(validate.of.gives_up)
    assert said == [False, False, False, False, True], "an equal score does not count as better"


def test_a_resumed_training_remembers(validate):
    validate.of.remember([{"epoch": "1", "val_AP50": "0.9"}, {"epoch": "2", "val_AP50": ""}, {"epoch": "3"}])
    validate(HALF, 4, patience=1)
    assert validate.of.gives_up


def test_a_failed_validation_does_not_end_a_training(validate, caplog):
    assert validate(DataError("patch.png", "is damaged", "cut it again"), 3) is None
    assert caplog.messages == ["no validation after epoch 3: patch.png: is damaged; cut it again"]


def test_too_little_gpu_memory_does_not_end_a_training(validate, caplog):
    assert validate(torch.OutOfMemoryError("CUDA out of memory.\nTried"), 3) is None
    assert caplog.messages[0].startswith(
        "no validation after epoch 3: validation: CUDA out of memory. Tried;"
    )


def test_weights_of_a_best_epoch_that_was_repeated_worse_are_removed(validate, tmp_path):
    """On a GPU a killed epoch may be worse the second time."""
    validate(HALF, 2)
    (tmp_path / "best_4.pth").write_bytes((tmp_path / "best_2.pth").read_bytes())
    validate(ALL, 6)
    assert [path.name for path in kept_weights(tmp_path)] == ["best_2.pth", "best_6.pth"]


@pytest.mark.parametrize("decides", [{"patience": 3}, {"checkpoint": "best"}])
def test_one_that_decides_does(validate, decides):
    with pytest.raises(DataError):
        validate(DataError("patch.png", "is damaged", "cut it again"), 3, **decides)


def test_outputs_that_are_not_finite(validate):
    with pytest.raises(TrainingError, match=r"epoch 3: .* the training diverged; lower base_lr"):
        validate(CheckpointError("the checkpoint", "is not finite", "train again"), 3)


def test_without_objects_there_are_no_scores(validate, patches):
    for path in (patches / "annfiles").iterdir():
        path.write_text("")
    scores = validate(NONE, 1)
    assert scores.row[:2] == ["", ""] and best_epoch({}) is None


@pytest.mark.parametrize(
    ("every", "epochs", "due"), [(3, 7, [1, 4, 7]), (3, 6, [3, 6]), (5, 3, [3]), (1, 2, [1, 2])]
)
def test_the_last_epoch_is_always_validated(validate, every, epochs, due):
    validate.of._settings = {"every": every}
    assert [epoch for epoch in range(1, epochs + 1) if validate.of.is_due(epoch, epochs)] == due
