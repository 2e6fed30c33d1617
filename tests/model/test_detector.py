"""The detectors against the facts of the public ones: keys, shapes, parameters, forward outputs.

``yoloms.json`` states the facts of the public rotated YOLO-MS, ``yolov8.json`` those of backbone and neck of
mmyolo 0.6's YOLOv8-N and of the YOLO-MS authors' ``yolov8-ms_n``. RTMDet-R is built from mmrotate's configs.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tiltbox.errors import SettingsError
from tiltbox.geometry.rotated import pairwise_iou
from tiltbox.model import build_detector
from tiltbox.model.compat import import_openmmlab
from tiltbox.model.complexity import count_complexity
from tiltbox.model.variants import load_variants

REFERENCE = json.loads((Path(__file__).parent / "yoloms.json").read_text())
YOLOV8 = json.loads((Path(__file__).parent / "yolov8.json").read_text())
IMAGE = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
RTMDET = ["rtmdet-r-tiny", "rtmdet-r-s", "rtmdet-r-m", "rtmdet-r-l"]


def fixed_value(key: str, like: torch.Tensor) -> torch.Tensor:
    """The reference's recipe for a state-dict entry that depends only on its name and shape."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    r = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    if key.endswith("running_var") or (like.dim() == 1 and key.endswith("weight")):
        return (0.5 + r).float()
    if like.dim() >= 2:
        return ((r - 0.5) * 2 * math.sqrt(3 / like[0].numel())).float()
    return ((r - 0.5) * 0.2).float()


def test_the_references_cover_all_variants():
    assert set(load_variants().variants) == REFERENCE.keys() | YOLOV8.keys() | set(RTMDET)


@pytest.mark.parametrize("name", REFERENCE)
def test_keys_shapes_and_parameters(name):
    model = build_detector(name)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == REFERENCE[name]["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == REFERENCE[name]["params"]


@pytest.mark.parametrize("name", [name for name, facts in REFERENCE.items() if "forward" in facts])
def test_forward_outputs(name):
    model = build_detector(name).eval()
    model.load_state_dict({key: fixed_value(key, value) for key, value in model.state_dict().items()})
    with torch.no_grad():
        outputs = model(IMAGE, mode="tensor")
    for kind, maps in zip(("cls_score", "bbox_pred", "angle_pred"), outputs, strict=True):
        for level, values in enumerate(maps):
            expected = REFERENCE[name]["forward"][f"{kind}.{level}"]
            assert_like(values, expected)


def assert_like(values: torch.Tensor, expected: dict) -> None:
    """Compare with the shape, twelve values, the mean and the standard deviation of a reference."""
    assert list(values.shape) == expected["shape"]
    picked = values.flatten()[torch.linspace(0, values.numel() - 1, 12).long()]
    torch.testing.assert_close(picked, torch.tensor(expected["samples"]), atol=1e-4, rtol=0)
    assert values.mean().item() == pytest.approx(expected["mean"], abs=1e-4)
    assert values.std().item() == pytest.approx(expected["std"], abs=1e-4)


@pytest.mark.parametrize("name", YOLOV8)
def test_backbone_and_neck_of_yolov8(name):
    model, expected = build_detector(name).eval(), YOLOV8[name]
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    of_head = {key for key in shapes if key.startswith("bbox_head.")}
    assert {key: shape for key, shape in shapes.items() if key not in of_head} == expected["state_dict"]
    assert (
        sum(p.numel() for part in (model.backbone, model.neck) for p in part.parameters())
        == expected["params"]
    )
    model.load_state_dict({key: fixed_value(key, value) for key, value in model.state_dict().items()})
    with torch.no_grad():
        maps = model.neck(model.backbone(IMAGE))
    for values, of_level in zip(maps, expected["maps"], strict=True):
        assert_like(values, of_level)


def mmrotates(name: str) -> torch.nn.Module:
    """RTMDet-R as mmrotate's public config builds it, without synchronised batch norm."""
    import_openmmlab()
    import mmrotate
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DefaultScope
    from mmrotate.registry import MODELS

    size = name.removeprefix("rtmdet-r-")
    configs = Path(mmrotate.__file__).parent / ".mim" / "configs" / "rotated_rtmdet"
    config = Config.fromfile(configs / f"rotated_rtmdet_{size}-3x-dota.py").model
    config.backbone.init_cfg = None  # would download the weights to start from
    with DefaultScope.overwrite_default_scope("mmrotate"):
        return revert_sync_batchnorm(MODELS.build(config))


@pytest.mark.parametrize("name", RTMDET)
def test_rtmdet_is_mmrotates(name):
    theirs, ours = mmrotates(name).eval(), build_detector(name).eval()
    weights = {key: fixed_value(key, value) for key, value in theirs.state_dict().items()}
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    theirs.load_state_dict(weights)
    ours.load_state_dict(weights)
    with torch.no_grad():
        pairs = zip(ours(IMAGE, mode="tensor"), theirs(IMAGE, mode="tensor"), strict=True)
    assert all(torch.equal(one, other) for maps in pairs for one, other in zip(*maps, strict=True))
    counts = [count_complexity(model, 256, 256) for model in (ours, theirs)]
    assert counts[0] == counts[1]


def test_another_number_of_classes():
    scores, _, _ = build_detector("yoloms-xs-current", num_classes=3)(
        torch.zeros(1, 3, 64, 64), mode="tensor"
    )
    assert [tuple(s.shape) for s in scores] == [(1, 3, 8, 8), (1, 3, 4, 4), (1, 3, 2, 2)]


def samples(*images: list[tuple[float, ...]]) -> list:
    """What mmdet takes in addition to the pixels of 128 x 128 images: rboxes, all of class 3."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from mmrotate.structures.bbox import RotatedBoxes

    result = []
    for rboxes in images:
        boxes = RotatedBoxes(torch.tensor(rboxes, dtype=torch.float32).reshape(-1, 5))
        labels = torch.full((len(rboxes),), 3)
        shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), (128, 128))
        meta = {**shapes, "scale_factor": (1.0, 1.0)}
        result.append(DetDataSample(metainfo=meta, gt_instances=InstanceData(bboxes=boxes, labels=labels)))
    return result


@pytest.mark.parametrize("name", ["yoloms-xs-previous", "yoloms-xs-current"])
@pytest.mark.parametrize(
    "images",
    [
        [[], []],
        [[(64, 64, 40, 20, 0.5)], []],
        [[(64, 64, 40, 20, 0.5), (64, 64, 40, 20, 0.5)], [(10, 120, 30, 1, -1.5)]],
    ],
    ids=["no objects at all", "none on one image", "objects in one place, and a needle"],
)
def test_losses_and_their_gradients(name, images):
    torch.manual_seed(0)
    model = build_detector(name)
    losses = model.loss(torch.randn(2, 3, 128, 128), samples(*images))
    assert set(losses) == {"loss_cls", "loss_bbox"}
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (losses["loss_bbox"].item() > 0) is any(images)


def test_what_is_learned_is_found():
    """Sixty steps on one image: the detector finds its object, and turns the box like it."""
    torch.manual_seed(0)
    image, truth = torch.full((1, 3, 128, 128), -1.0), samples([(64, 64, 60, 20, 0.5)])
    canvas = np.zeros((128, 128), np.uint8)
    corners = cv2.boxPoints(((64, 64), (60, 20), math.degrees(0.5)))
    cv2.fillConvexPoly(canvas, np.rint(corners).astype(np.int32), 1)
    image[0, :, torch.from_numpy(canvas) == 1] = 1.0
    model = build_detector("yoloms-xs-previous")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        losses = model.loss(image, truth)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = model(image, samples([]), mode="predict")[0].pred_instances  # batch norm of this image
    box, label = found.bboxes[0], found.labels[0]
    assert label == 3
    assert pairwise_iou(box[None], torch.tensor([[64, 64, 60, 20, 0.5]])).item() > 0.8


def test_an_unknown_variant_is_named_with_its_nearest():
    with pytest.raises(
        SettingsError, match=r"unknown variant 'yoloms-xs-curent'; did you mean 'yoloms-xs-current'"
    ):
        build_detector("yoloms-xs-curent")
