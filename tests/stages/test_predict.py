"""Prediction as a stage: what it writes, in which frame, and what it refuses."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch

from tiltbox.__main__ import main
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.detections import read_detections
from tiltbox.dota.images.listing import list_images
from tiltbox.errors import CheckpointError, DataError, SettingsError
from tiltbox.model import build_detector, inference
from tiltbox.model.checkpoint import save_checkpoint
from tiltbox.model.variants import find_variant
from tiltbox.stages.predict import _Job, _on_devices, predict

NAME = "yoloms-xs-previous"
VARIANT = find_variant(NAME)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A detector that finds something anywhere: random weights, with scores pushed up."""
    torch.manual_seed(0)
    model = build_detector(NAME)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data *= 2.5  # random weights damp what they see until all scores are alike
    for layer in model.bbox_head.rtm_cls:
        torch.nn.init.normal_(layer.weight, std=6)
        torch.nn.init.constant_(layer.bias, -2.8)
    for layer in model.bbox_head.rtm_reg:
        layer.bias.data = torch.tensor([0.0, 0.5, 0.0, 0.5])  # boxes higher than wide, which le90 must turn
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pth"
    save_checkpoint(path, model.state_dict(), {"variant": NAME})
    return path


@pytest.fixture
def patches(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a__b__128__0___0", "a__b__128__104___208", "c__128__0___0"):
        image = rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), image)
    return tmp_path


def run(checkpoint, patches, image_size=128, **options):
    out = patches / "out.parquet"
    predict(NAME, VARIANT, checkpoint, patches, out, image_size=image_size, gpus=0, **options)
    return read_detections(out)


def test_columns_follow_the_patch_names(checkpoint, patches):
    found = run(checkpoint, patches)
    images = [found.image_names[index] for index in found.image]
    columns = (images, found.x.tolist(), found.y.tolist(), found.size.tolist())
    places = set(zip(*columns, strict=True))
    assert places == {("a__b", 0, 0, 128), ("a__b", 104, 208, 128), ("c", 0, 0, 128)}
    assert (found.score > 0.05).all()
    assert (found.rboxes[:, 2] >= found.rboxes[:, 3]).all()
    assert ((found.rboxes[:, 4] >= -np.pi / 2) & (found.rboxes[:, 4] < np.pi / 2)).all()


def test_the_batch_size_does_not_matter(checkpoint, patches):
    one, three = run(checkpoint, patches, batch=1), run(checkpoint, patches, batch=3)
    np.testing.assert_allclose(one.rboxes, three.rboxes, atol=1e-3)


def test_outputs_that_are_not_finite(patches):
    """They would look like patches without objects."""
    model = build_detector(NAME)
    for layer in model.bbox_head.rtm_reg:
        torch.nn.init.constant_(layer.bias, 200.0)  # distances are its exponential
    save_checkpoint(patches / "c.pth", model.state_dict(), {"variant": NAME})
    with pytest.raises(CheckpointError, match="gives scores or boxes that are not finite"):
        run(patches / "c.pth", patches)
    assert not (patches / "out.parquet").exists()


def test_boxes_are_in_pixels_of_the_patch_as_it_is(checkpoint, tmp_path):
    """A patch of another size is resized for the detector, and its boxes are scaled back."""
    small = np.random.default_rng(1).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    large = cv2.resize(small, (256, 256), interpolation=cv2.INTER_NEAREST)
    for size, image in ((128, small), (256, large)):
        cv2.imwrite(str(tmp_path / f"p__{size}__0___0.png"), image)
    model = build_detector(NAME).eval()
    model.load_state_dict(torch.load(checkpoint)["state_dict"])
    files = [tmp_path / "p__128__0___0.png", tmp_path / "p__256__0___0.png"]
    as_is, halved = (inference.detect_patches(model, [file], image_size=128, batch=1) for file in files)
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(shrunk, small), "halving must undo the doubling for this comparison"
    np.testing.assert_allclose(halved["rboxes"][:, :4], as_is["rboxes"][:, :4] * 2, rtol=1e-4)


@pytest.fixture
def trained_at_64(checkpoint, tmp_path):
    path = tmp_path / "trained_at_64.pth"
    meta = {"variant": NAME, "image_size": 64}
    save_checkpoint(path, torch.load(checkpoint)["state_dict"], meta)
    return path


@pytest.mark.parametrize(
    ("known", "options", "size"),
    [
        (True, [], 64),
        (True, ["--image-size", "96"], 96),
        (True, ["--schedule", "smoke"], 64),
        (False, ["--image-size", "96", "--schedule", "smoke"], 96),
        (False, ["--schedule", "smoke"], 128),
        (False, [], 1024),
    ],
)
def test_patches_are_seen_at_the_size_of_training(
    checkpoint, trained_at_64, patches, monkeypatch, known, options, size
):
    seen = []
    monkeypatch.setattr(inference, "_run", lambda model, samples: seen.append(samples) or 1 / 0)
    arguments = ["predict", NAME, "--checkpoint", trained_at_64 if known else checkpoint]
    arguments += ["--patches", patches, "--out", patches / "out.parquet", "--gpus", 0, *options]
    assert main(list(map(str, arguments))) == 1
    assert {sample["inputs"].shape for sample in seen[0]} == {(3, size, size)}


def test_other_classes_than_those_of_training(checkpoint, patches, tmp_path):
    classes = [f"class-{number}" for number in range(15)]
    meta = {"variant": NAME, "classes": classes}
    save_checkpoint(tmp_path / "other.pth", torch.load(checkpoint)["state_dict"], meta)
    with pytest.raises(CheckpointError, match="was trained on other classes"):
        run(tmp_path / "other.pth", patches)


def test_no_detections_of_any_class(patches, tmp_path):
    model = build_detector(NAME)
    for layer in model.bbox_head.rtm_cls:
        torch.nn.init.constant_(layer.bias, -20.0)
    save_checkpoint(tmp_path / "blind.pth", model.state_dict(), {"variant": NAME})
    assert len(run(tmp_path / "blind.pth", patches)) == 0


def test_an_image_size_that_the_detector_cannot_halve(checkpoint, patches):
    with pytest.raises(SettingsError, match="--image-size: 100 is not a multiple of 32"):
        run(checkpoint, patches, image_size=100)


def test_no_patches(checkpoint, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="contains no patches; cut the images with `tiltbox split` first"):
        run(checkpoint, tmp_path)


def test_an_unreadable_patch_is_named(checkpoint, patches):
    (patches / "images/c__128__0___0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"c__128__0___0\.png"):
        run(checkpoint, patches)
    assert not (patches / "out.parquet").exists()


def test_a_file_name_that_is_not_a_patch_name(checkpoint, patches):
    shutil.copy(patches / "images/c__128__0___0.png", patches / "images/photo.png")
    with pytest.raises(DataError, match="photo"):
        run(checkpoint, patches)


def test_a_patch_at_a_rate(checkpoint, patches):
    """The devkit names patches like this: merge would take the rate for the size of the window."""
    shutil.copy(patches / "images/c__128__0___0.png", patches / "images/d__0.5__0___0.png")
    with pytest.raises(DataError, match=r"d__0\.5__0___0\.png: is named as a patch at rate 0\.5"):
        run(checkpoint, patches)


def test_devices_share_the_patches(checkpoint, patches):
    """More than one GPU works in the same way."""
    job = _Job(NAME, VARIANT, checkpoint, DOTA_V1_CLASSES, 128, 1024, 1)
    images = list_images(patches / "images")
    [alone] = _on_devices(job, images, ["cpu"])
    parts = _on_devices(job, images, ["cpu", "cpu"])
    assert [len(set(part["patch"])) for part in parts] == [2, 1]
    for column, values in alone.items():
        np.testing.assert_array_equal(np.concatenate([part[column] for part in parts]), values)


def test_no_patches_for_one_of_several_processes():
    found = inference.detect_patches(build_detector(NAME).eval(), [], image_size=128, batch=2)
    assert {name: len(column) for name, column in found.items()} == dict.fromkeys(found, 0)
    assert found["rboxes"].shape == (0, 5)


def test_a_checkpoint_of_another_variant(patches, tmp_path):
    save_checkpoint(tmp_path / "s.pth", build_detector("yoloms-s-previous").state_dict(), {})
    with pytest.raises(CheckpointError, match="does not fit yoloms-xs-previous"):
        run(tmp_path / "s.pth", patches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds(checkpoint, patches):
    on_cpu = run(checkpoint, patches)
    predict(NAME, VARIANT, checkpoint, patches, patches / "gpu.parquet", image_size=128, gpus=1)
    on_gpu = read_detections(patches / "gpu.parquet")
    assert abs(len(on_gpu) - len(on_cpu)) <= 0.01 * len(on_cpu)
    best = slice(0, 20)
    np.testing.assert_allclose(
        np.sort(on_gpu.score)[::-1][best], np.sort(on_cpu.score)[::-1][best], atol=1e-3
    )
