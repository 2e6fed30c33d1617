from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch

from tiltbox.errors import OutputError
from tiltbox.files.space import (
    bytes_of_patches,
    bytes_of_training,
    require_space,
    require_space_for_all,
)
from tiltbox.stages.split import split

Usage = type(shutil.disk_usage("/"))
RANDOM = np.random.default_rng(0)


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that every disk has free."""
    return lambda size: monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**50, 2**50 - size, size))


def test_nothing_needs_no_space(tmp_path, free):
    free(0)
    require_space(tmp_path, 0)
    assert bytes_of_patches([], 1) == 0


def test_just_enough_space(tmp_path, free):
    free(1000)
    require_space(tmp_path, 1000)


@pytest.mark.parametrize(
    ("needed", "has", "says"),
    [
        (20 * 2**30, 3 * 2**29, "needs at least 20.0 GiB, but only 1.5 GiB are free"),
        (3 * 2**20, 2**19, "needs at least 3.0 MiB, but only 0.5 MiB are free"),
    ],
)
def test_too_little_space(tmp_path, free, needed, has, says):
    """One line: where, what is needed, what there is, what to do. No folder is made for it."""
    free(has)
    with pytest.raises(OutputError) as error:
        require_space(tmp_path / "not/made", needed)
    remedy = "free some space or choose another folder with --out"
    assert str(error.value) == f"{tmp_path}: {says}; {remedy}"
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("devices", "fits"), [((1, 1), False), ((1, 2), True)])
def test_folders_on_one_file_system_share_its_space(tmp_path, free, monkeypatch, devices, fits):
    free(1000)
    on = dict(zip((tmp_path / "a", tmp_path / "b"), devices, strict=True))
    for folder in on:
        folder.mkdir()
    monkeypatch.setattr("tiltbox.files.space._device", on.__getitem__)
    needs = [(tmp_path / "a/not/made", 600), (tmp_path / "b", 500)]
    if fits:
        require_space_for_all(needs)
    else:
        with pytest.raises(OutputError, match=r"needs at least 0\.0 MiB"):
            require_space_for_all(needs)


def pixels(kind: str) -> np.ndarray:
    ramp = np.add.outer(np.arange(300), np.arange(400)) // 4 % 256
    smooth = np.dstack([ramp, ramp[::-1], ramp]).astype(np.uint8)
    return {
        "black": np.zeros((300, 400, 3), np.uint8),
        "smooth": smooth,
        "noise": RANDOM.integers(0, 256, (300, 400, 3), np.uint8),
        "grey": smooth[:, :, 0],
        "alpha": np.dstack([smooth, RANDOM.integers(0, 256, (300, 400), np.uint8)]),
        "deep": RANDOM.integers(0, 256, (300, 400, 3)).astype(np.uint16),  # 0 as 8 bits
    }[kind]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kind", ["black", "smooth", "noise", "grey", "alpha", "deep"])
@pytest.mark.parametrize("size", [64, 1024])
def test_patches_never_take_less_than_the_estimate(tmp_path, suffix, kind, size):
    image = pixels(kind)
    if suffix in ("jpg", "bmp") and kind in ("alpha", "deep"):
        pytest.skip("no such image")
    (tmp_path / "in/images").mkdir(parents=True)
    path = tmp_path / f"in/images/P1.{suffix}"
    assert cv2.imwrite(str(path), image)
    split([tmp_path / "in"], tmp_path / "out", size=size, overlap=0, rates=[0.5, 1.0], workers=1)
    taken = sum(each.stat().st_size for each in (tmp_path / "out/images").iterdir())
    estimate = bytes_of_patches([(path, image.shape[0] * image.shape[1])], 2)
    assert estimate <= taken
    if kind == "noise" and suffix == "png":
        assert estimate > taken / 4, "an estimate of next to nothing would be of no use"


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_trainings_never_take_less_than_the_estimate(tmp_path, averaged, optimizer):
    """Two checkpoints as they are written, and the weights, of a model of 4 MB."""
    model = torch.nn.Linear(1000, 1000)
    chosen = optimizer(
        model.parameters(), lr=0.1, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {})
    )
    model(torch.ones(1, 1000)).sum().backward()
    chosen.step()
    weights = model.state_dict()
    content = {"state_dict": weights, "optimizer": chosen.state_dict()}
    content |= {"ema_state_dict": {key: value + 1 for key, value in weights.items()}} if averaged else {}
    for name in ("epoch_1.pth", "epoch_2.pth"):
        torch.save(content, tmp_path / name)
    torch.save({"state_dict": weights}, tmp_path / "checkpoint.pth")
    taken = sum(path.stat().st_size for path in tmp_path.iterdir())
    size = sum(value.nbytes for value in weights.values())
    assert taken / 2 < bytes_of_training(size, 2, averaged=averaged) <= taken
