"""Builds a detector from its row in ``configs/variants.yaml``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiltbox.model.compat import import_openmmlab
from tiltbox.settings.schedules import Objective
from tiltbox.settings.variants import Variant, find_variant

if TYPE_CHECKING:
    from torch import nn

STRIDES = (8, 16, 32)
INPUT_MEAN = (103.53, 116.28, 123.675)  # BGR, of ImageNet
INPUT_STD = (57.375, 57.12, 58.395)
SCORE_THRESHOLD = 0.05
PATCH_NMS_IOU = 0.1
MAX_DETECTIONS = 2000  # per patch, before and after NMS
PAD_VALUE = 114  # around images smaller than the input


def build_detector(variant: str | Variant, *, num_classes: int = 15, sync_bn: bool = False) -> nn.Module:
    """A rotated YOLO-MS detector on the CPU with random weights.

    Args:
        variant: A name such as ``yoloms-xs-current``, or a row of settings.
        num_classes: Classes of the head.
        sync_bn: Whether all batch norm is synchronised between GPUs in parallel training. The published
            detectors were trained like that: their configs set it for the head only, but mmdet's RTMDet
            converts the backbone and the neck as well.

    Returns:
        An mmdet detector: ``model(x, mode="tensor")`` on (b, 3, h, w) gives three tuples, ``cls_score``
        (b, classes, h/s, w/s), ``bbox_pred`` (b, 4, …; distances in pixels to left, top, right and
        bottom) and ``angle_pred`` (b, 1, …; radians), each at strides 8, 16 and 32; ``.loss(...)`` and
        ``.predict(...)`` take mmdet data samples.

    Raises:
        SettingsError: The variant does not exist.
    """
    import_openmmlab()
    from mmengine.registry import DefaultScope
    from mmrotate.registry import MODELS

    from tiltbox.model import modules  # noqa: F401  (registers)

    if isinstance(variant, str):
        variant = find_variant(variant)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        model = MODELS.build(detector_config(variant, num_classes, sync_bn=sync_bn))
        with _silence():
            model.init_weights()
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Suppresses mmengine's report on how each of some 600 parameters was initialised."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


def detector_config(
    variant: Variant, num_classes: int, *, sync_bn: bool = False, objective: Objective | None = None
) -> dict:
    """The detector as mmengine's registries read it; the objective does not change what it computes."""
    objective = objective or Objective()
    block = {"width": variant.width, "layers": variant.layers, "start_branch": variant.start_branch}
    channels = variant.channels
    return {
        "type": "mmdet.RTMDet",
        "data_preprocessor": {
            "type": "mmdet.DetDataPreprocessor",
            "mean": INPUT_MEAN,
            "std": INPUT_STD,
            "bgr_to_rgb": False,
            "boxtype2tensor": False,
        },
        "backbone": {
            "type": "YOLOMSBackbone",
            **block,
            "layer": variant.backbone_layer,
            "attention": variant.attention,
            "query_size": variant.query_size,
        },
        "neck": {
            "type": "YOLOMSNeck",
            **block,
            "layer": variant.neck_layer,
            "top_down_kernels": variant.top_down_kernels,
            "bottom_up_kernels": variant.bottom_up_kernels,
        },
        "bbox_head": _head_config(variant, num_classes, channels) | _losses(objective),
        "use_syncbn": sync_bn,
        "train_cfg": {
            "assigner": _assigner(objective),
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "test_cfg": {
            "nms_pre": MAX_DETECTIONS,
            "score_thr": SCORE_THRESHOLD,
            "nms": {"iou_threshold": PATCH_NMS_IOU},
            "max_per_img": MAX_DETECTIONS,
        },
    }


def _assigner(objective: Objective) -> dict:
    if objective.assigner == "task-aligned":
        kind = {"type": "TaskAlignedRotatedAssigner", "least_side": objective.least_side}
    else:
        kind = {"type": "mmdet.DynamicSoftLabelAssigner", "iou_calculator": {"type": "RotatedOverlaps"}}
    return {**kind, "topk": objective.topk}


def _losses(objective: Objective) -> dict:
    """Cross-entropy with the IoU as its target, focused or not, and the rotated IoU."""
    angle = {"angle_weight": objective.angle_weight} if objective.angle_weight else {}
    return {
        "loss_cls": {
            "type": "mmdet.QualityFocalLoss",
            "use_sigmoid": True,
            "beta": objective.focus,
            "loss_weight": 1.0,
        },
        "loss_bbox": {"type": "LinearRotatedIoULoss", "loss_weight": objective.iou_weight, **angle},
    }


def _head_config(variant: Variant, num_classes: int, channels: int) -> dict:
    if variant.head == "shared":
        kind = {"type": "YOLOMSSharedHead", "share_conv": True}
    else:
        kind = {"type": "YOLOMSUnsharedHead", "groups": variant.head_groups}
    return {
        **kind,
        "num_classes": num_classes,
        "in_channels": channels,
        "feat_channels": channels,
        "stacked_convs": 2,
        "angle_version": "le90",
        "anchor_generator": {"type": "mmdet.MlvlPointGenerator", "offset": 0, "strides": STRIDES},
        "bbox_coder": {"type": "DistanceAnglePointCoder", "angle_version": "le90"},
        "with_objectness": False,
        "exp_on_reg": True,
        "pred_kernel_size": 1,
        "use_hbbox_loss": False,
        "scale_angle": False,
        "loss_angle": None,
        "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "LeakyReLU", "inplace": True},
    }
