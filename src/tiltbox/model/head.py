"""Rotated RTMDet's head, which all families use: layers and decoding are mmrotate's.

Targets, losses and non-maximum suppression are tiltbox's own; they give what mmrotate's give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from tiltbox.geometry.rotated import rotated_nms
from tiltbox.model.assigner import Objects
from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmdet.utils import reduce_mean  # noqa: E402
from mmrotate.models.dense_heads.rotated_rtmdet_head import RotatedRTMDetSepBNHead  # noqa: E402
from mmrotate.structures import RotatedBoxes  # noqa: E402

Levels = Sequence[Tensor]  # maps (b, channels, h, w), one for each stride


class RotatedHead(RotatedRTMDetSepBNHead):
    """With ``share_conv``, one set of convolutions for all levels; each level has its own batch norm."""

    def forward(self, feats: Levels) -> tuple[tuple[Tensor, ...], ...]:
        """Scores, distances in pixels and angles of each level; in single precision, whatever the layers'.

        Where half precision computes the towers, the last layers still decide where boxes are.
        """
        return tuple(zip(*map(self._level, range(len(feats)), feats), strict=True))

    def _level(self, level: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        classes = boxes = x
        for layer in self.cls_convs[level]:
            classes = layer(classes)
        for layer in self.reg_convs[level]:
            boxes = layer(boxes)
        with torch.autocast("cuda", enabled=False) if x.is_cuda else nullcontext():
            classes, boxes = classes.float(), boxes.float()
            distances = self.rtm_reg[level](boxes)
            distances = distances.exp() if self.exp_on_reg else distances
            stride, _ = self.prior_generator.strides[level]
            return self.rtm_cls[level](classes), distances * stride, self.rtm_ang[level](boxes)

    def loss_by_feat(
        self,
        cls_scores: Levels,
        bbox_preds: Levels,
        angle_preds: Levels,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: object = None,
    ) -> dict[str, Tensor]:
        """The losses of a step, divided by the sum of what all scores should be.

        Args:
            cls_scores: Maps of scores before the sigmoid.
            bbox_preds: Distances in pixels from a prior to the left, top, right and bottom of its box.
            angle_preds: Radians.
            batch_gt_instances: ``bboxes`` and ``labels`` of each image.
        """
        priors = self._priors([tuple(level.shape[-2:]) for level in cls_scores], cls_scores[0].device)
        scores = _rows(cls_scores)
        boxes = decode(priors, _rows(bbox_preds), _rows(angle_preds)[..., 0])
        truth = RotatedBoxes(torch.cat([each.bboxes.tensor for each in batch_gt_instances]), clone=False)
        truth = truth.regularize_boxes(self.angle_version)
        labels = torch.cat([each.labels for each in batch_gt_instances])
        counts = [len(each.labels) for each in batch_gt_instances]
        objects = list(map(Objects, truth.split(counts), labels.split(counts)))
        matches = self.assigner.match(scores.detach(), boxes.detach(), priors, objects)
        scores, boxes = scores.flatten(0, 1), boxes.flatten(0, 1)
        places = matches.priors, labels[matches.objects]
        quality = torch.zeros_like(scores).index_put(places, matches.quality)
        boxes, truth = boxes[matches.priors], truth[matches.objects]
        total = reduce_mean(matches.quality.sum()).clamp(min=1)
        return {
            "loss_cls": self.loss_cls(scores, quality) / total,
            "loss_bbox": self.loss_bbox(boxes, truth, matches.quality) / total,
        }

    def _priors(self, sizes: list[tuple[int, ...]], device: torch.device) -> Tensor:
        """x, y, stride and stride of all priors of maps of these heights and widths: (n, 4)."""
        known = self.__dict__.setdefault("_known_priors", {})
        key = (*sizes, device)
        if key not in known:
            levels = self.prior_generator.grid_priors(sizes, device=device, with_stride=True)
            known.clear()
            known[key] = torch.cat(levels)
        return known[key]

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        """Scale back to the patch if asked, then keep the best boxes after per-class NMS."""
        if rescale:
            assert img_meta is not None, "mmdet gives it"
            factors = [1 / factor for factor in img_meta["scale_factor"]]
            results.bboxes.rescale_(factors)
        if with_nms:
            kept = rotated_nms(
                results.bboxes.tensor, results.scores, results.labels, cfg["nms"]["iou_threshold"]
            )
            results = results[kept[: cfg["max_per_img"]]]
        return results


def decode(priors: Tensor, distances: Tensor, angles: Tensor) -> Tensor:
    """Rboxes (b, n, 5), le90, from priors (n, 4), distances to four sides (b, n, 4) and angles (b, n)."""
    left, top, right, bottom = distances.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    along, across = (right - left) / 2, (bottom - top) / 2
    x = priors[:, 0] + along * cos - across * sin
    y = priors[:, 1] + along * sin + across * cos
    turn = (angles + math.pi / 2) % math.pi - math.pi / 2
    return torch.stack([x, y, left + right, top + bottom, turn], dim=-1)


def _rows(levels: Levels) -> Tensor:
    """Maps (b, channels, h, w) to (b, n, channels) in single precision, level by level and row by row."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], dim=1).float()
