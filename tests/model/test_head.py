"""Losses and gradients of the head are those of mmrotate's head with mmdet's assigner and loss."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402
from mmrotate.structures import RotatedBoxes, distance2obb  # noqa: E402

from tiltbox.model.detector import detector_config  # noqa: E402
from tiltbox.model.head import RotatedHead, decode  # noqa: E402
from tiltbox.model.variants import find_variant  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SIDE, CLASSES = 256, 15


def head() -> RotatedHead:
    from tiltbox.model import modules  # noqa: F401  (registers)

    config = detector_config(find_variant("yoloms-xs-previous"), CLASSES)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        return MODELS.build(config["bbox_head"] | {"train_cfg": config["train_cfg"]})


def like_mmrotate() -> RotatedHead:
    """The same head with what mmrotate's public config has in place of tiltbox's parts."""
    spec = importlib.util.spec_from_file_location("peer_head", ROOT / "benchmarks/peer_head.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    theirs = head()
    peer.as_in_mmrotate(theirs)
    return theirs


def maps(seed: int, near: float) -> list[list[torch.Tensor]]:
    """Scores, distances and angles of two images; boxes of about ``near`` pixels."""
    draw = torch.Generator().manual_seed(seed)
    sides = [SIDE // stride for stride in (8, 16, 32)]
    scores = [torch.randn(2, CLASSES, side, side, generator=draw) - 2 for side in sides]
    boxes = [near * (0.2 + torch.rand(2, 4, side, side, generator=draw)) for side in sides]
    angles = [torch.randn(2, 1, side, side, generator=draw) for side in sides]
    return [[level.requires_grad_() for level in levels] for levels in (scores, boxes, angles)]


def objects(seed: int, counts: tuple[int, ...], small: bool) -> list[InstanceData]:
    draw = torch.Generator().manual_seed(100 + seed)
    found = []
    for count in counts:
        boxes = torch.rand(count, 5, generator=draw)
        boxes = boxes * torch.tensor([SIDE, SIDE, *((8, 6) if small else (60, 40)), 3.0]) + 2
        labels = torch.randint(CLASSES, (count,), generator=draw)
        found.append(InstanceData(bboxes=RotatedBoxes(boxes), labels=labels))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("counts", [(8, 5), (60, 0), (1, 1), (0, 0)])
def test_losses_and_gradients_are_those_of_mmrotate(seed, small, counts):
    results = []
    for module in (head(), like_mmrotate()):
        levels = maps(seed, near=20)
        truth = objects(seed, counts, small)
        metas = [{"img_shape": (SIDE, SIDE), "pad_shape": (SIDE, SIDE)}] * 2
        losses = module.loss_by_feat(*levels, truth, metas)
        losses = {name: sum(loss) if isinstance(loss, list) else loss for name, loss in losses.items()}
        sum(losses.values()).backward()
        results.append((losses, [level.grad for each in levels for level in each]))
    (found, gradients), (expected, references) = results
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5)
    for gradient, reference in zip(gradients, references, strict=True):
        assert gradient == pytest.approx(reference, rel=1e-4, abs=1e-6)


def test_boxes_are_those_of_mmrotate():
    torch.manual_seed(0)
    priors, distances, angles = torch.rand(30, 4) * 64, torch.rand(2, 30, 4) * 50, torch.randn(2, 30) * 3
    expected = distance2obb(priors, torch.cat([distances, angles[..., None]], dim=2), "le90")
    assert decode(priors, distances, angles) == pytest.approx(expected, rel=1e-5, abs=1e-4)
