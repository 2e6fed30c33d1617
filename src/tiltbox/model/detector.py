"""Builds a detector from its row in ``configs/variants.yaml``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiltbox.model.compat import import_openmmlab
from tiltbox.model.objective import Objective
from tiltbox.model.variant import Config, Variant
from tiltbox.model.variants import find_variant

if TYPE_CHECKING:
    from torch import nn

SCORE_THRESHOLD = 0.05
PATCH_NMS_IOU = 0.1
MAX_DETECTIONS = 2000  # per patch, before and after NMS
PAD_VALUE = 114  # around images smaller than the input


def build_detector(variant: str | Variant, *, num_classes: int = 15, sync_bn: bool = False) -> nn.Module:
    """A detector on the CPU with random weights.

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
) -> Config:
    """The detector as mmengine's registries read it; the objective does not change what it computes."""
    objective = objective or Objective()
    parts = variant.parts(num_classes)
    return {
        "type": "mmdet.RTMDet",
        "data_preprocessor": {
            "type": "mmdet.DetDataPreprocessor",
            "boxtype2tensor": False,
            "non_blocking": True,
            **parts.pixels,
        },
        "backbone": parts.backbone,
        "neck": parts.neck,
        "bbox_head": parts.head | _losses(objective),
        "use_syncbn": sync_bn,
        "train_cfg": {"assigner": _assigner(objective)},
        "test_cfg": {
            "nms_pre": MAX_DETECTIONS,
            "score_thr": SCORE_THRESHOLD,
            "nms": {"iou_threshold": PATCH_NMS_IOU},
            "max_per_img": MAX_DETECTIONS,
        },
    }


def _assigner(objective: Objective) -> Config:
    if objective.assigner == "task-aligned":
        return {"type": "TaskAligned", "topk": objective.topk, "least_side": objective.least_side}
    return {"type": "DynamicSoftLabel", "topk": objective.topk}


def _losses(objective: Objective) -> Config:
    """Cross-entropy with the IoU as its target, focused or not, and the rotated IoU."""
    angle = {"angle_weight": objective.angle_weight} if objective.angle_weight else {}
    return {
        "loss_cls": {"type": "FocusedCrossEntropy", "use_sigmoid": True, "focus": objective.focus},
        "loss_bbox": {"type": "LinearRotatedIoULoss", "loss_weight": objective.iou_weight, **angle},
    }
