"""What a training sees of the patches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.model.compat import import_openmmlab
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import Objective, find_schedule

import_openmmlab()
from mmengine.registry import DefaultScope  # noqa: E402
from mmrotate.registry import MODELS  # noqa: E402

from tiltbox.model import modules  # noqa: E402, F401  (registers)
from tiltbox.model.detector import detector_config  # noqa: E402
from tiltbox.training import quads  # noqa: E402, F401  (registers)
from tiltbox.training.data import PatchDataset  # noqa: E402
from tiltbox.training.pipeline import train_pipeline  # noqa: E402

SMOKE = find_schedule("smoke")
WHITE, PADDING, OUTSIDE = 255, 114, 0


@pytest.fixture
def patches(tmp_path):
    """Three patches of 128 x 96 pixels: a ship; a ship and a roundabout; no objects."""
    (tmp_path / "images").mkdir(), (tmp_path / "annfiles").mkdir()
    for name in ("a__128__0___0", "b__128__0___0", "c__128__0___0"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((96, 128, 3), WHITE, np.uint8))
        (tmp_path / "annfiles" / f"{name}.txt").write_text("")
    ship, roundabout = "40 40 80 40 80 52 40 52 ship 0\n", "50 20 60 20 60 30 50 30 roundabout 0\n"
    (tmp_path / "annfiles/a__128__0___0.txt").write_text(ship)
    (tmp_path / "annfiles/b__128__0___0.txt").write_text(ship + roundabout)
    return tmp_path


def dataset(patches, **changes) -> PatchDataset:
    pipeline = train_pipeline(SMOKE.model_copy(update=changes), DOTA_V1_CLASSES)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        return PatchDataset(str(patches), DOTA_V1_CLASSES, pipeline=pipeline)


def test_patches_without_objects_are_left_out(patches):
    found = dataset(patches)
    names = [found[0, index]["data_samples"].img_id for index in range(len(found))]
    assert names == ["a__128__0___0", "b__128__0___0"]


@pytest.mark.parametrize("rotate", [0.0, 1.0])
def test_a_quad_as_thin_as_a_hair(patches, rotate):
    """OpenCV's smallest rectangle fails for it; the other box of the patch is unchanged."""
    hair = "159.3127 125.3658 488.6558 305.554 376.8312 244.3732 650.3269 394.0065 ship 0\n"
    ship = "40 40 80 40 80 52 40 52 ship 0\n"
    (patches / "annfiles/a__128__0___0.txt").write_text(hair + ship)
    boxes = dataset(patches, flip=0.0, rotate=rotate)[0, 0]["data_samples"].gt_instances.bboxes.tensor
    thin, whole = boxes if len(boxes) == 2 else (None, boxes[0])
    assert sorted(whole[2:4].tolist()) == pytest.approx([12, 40], abs=1e-3)
    if thin is not None:
        assert min(thin[2:4]) < 1 < 500 < max(thin[2:4])


def test_patches_without_objects_where_they_are_wanted(patches):
    """An empty one has no boxes; a whole batch of them has a loss from scores alone."""
    with DefaultScope.overwrite_default_scope("mmrotate"):
        pipeline = train_pipeline(SMOKE, DOTA_V1_CLASSES)
        found = PatchDataset(str(patches), DOTA_V1_CLASSES, background=True, pipeline=pipeline)
    assert len(found) == 3
    empty = found[0, 2]
    assert empty["data_samples"].gt_instances.bboxes.tensor.shape == (0, 5)
    for objective in (Objective(), find_schedule("small-cpu").objective):
        config = detector_config(find_variant("yoloms-xs-previous"), 15, objective=objective)
        with DefaultScope.overwrite_default_scope("mmrotate"):
            model = MODELS.build(config)
            batch = {"inputs": [empty["inputs"]] * 2, "data_samples": [empty["data_samples"]] * 2}
            data = model.data_preprocessor(batch, True)
            losses = model(**data, mode="loss")
        assert losses["loss_cls"] > 0 and losses["loss_bbox"] == 0


def test_as_it_is(patches):
    """Padded at the bottom; boxes as rboxes in pixels."""
    item = dataset(patches, flip=0.0, rotate=0.0)[0, 1]
    image, found = item["inputs"].numpy(), item["data_samples"].gt_instances
    assert image.shape == (3, 128, 128)
    assert (image[:, :96] == WHITE).all() and (image[:, 96:] == PADDING).all()
    assert [DOTA_V1_CLASSES[label] for label in found.labels] == ["ship", "roundabout"]
    assert found.bboxes.tensor[0, :2].tolist() == [60, 46]
    assert sorted(found.bboxes.tensor[0, 2:4].tolist()) == [12, 40]


def test_rotation_by_any_angle(patches):
    """The corners that come into view are black, as in the published recipe."""
    item = dataset(patches, flip=0.0, rotate=1.0)[0, 0]
    (ship,) = item["data_samples"].gt_instances.bboxes.tensor
    assert 0.01 < ship[4] % (np.pi / 2) < np.pi / 2 - 0.01
    image = item["inputs"].numpy()[:, :96]
    assert OUTSIDE in image and PADDING not in image


def test_round_things_turn_by_right_angles_alone(patches):
    """Their boxes are parallel to the image and stay so."""
    turned = dataset(patches, flip=0.0, rotate=1.0)
    for epoch in range(4):
        boxes = turned[epoch, 1]["data_samples"].gt_instances.bboxes.tensor
        assert np.abs(np.sin(2 * boxes[:, 4].numpy())).max() < 1e-5


def test_random_numbers_follow_from_seed_epoch_and_index(patches):
    """Whatever was read before, and with mosaics, whose other images are drawn as well."""
    found = dataset(patches, mosaic=1.0)
    first, again = found[3, 1], (found[0, 0], found[3, 1])[-1]
    assert same(first, again)
    assert not same(first, found[4, 1])
    found.seed = 1
    assert not same(first, found[3, 1])


def same(one: dict, two: dict) -> bool:
    """Whether two items of a dataset are equal in every pixel and box."""
    boxes = [item["data_samples"].gt_instances.bboxes.tensor for item in (one, two)]
    return torch.equal(one["inputs"], two["inputs"]) and torch.equal(*boxes)
