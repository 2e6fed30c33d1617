"""Layers of a detector in the form that its device trains fastest; what they compute stays the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tiltbox.model.compat import import_openmmlab
from tiltbox.model.depthwise import quicken
from tiltbox.model.on_gpu import quicken_on_gpu
from tiltbox.training.captured import CapturedLayers, Levels

import_openmmlab()
from mmdet.models.detectors import RTMDet  # noqa: E402
from mmdet.models.utils import unpack_gt_instances  # noqa: E402


class CapturedDetector(RTMDet):
    """A detector whose layers are recorded as CUDA graphs while it is trained."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        truth, ignored, metas = unpack_gt_instances(batch_data_samples)
        return self.bbox_head.loss_by_feat(*self.outputs(batch_inputs), truth, metas, ignored)

    def outputs(self, images: Tensor) -> Levels:
        """The head's outputs for images (b, 3, h, w)."""
        # Not before the first step, since averages of the weights begin as a copy of the detector.
        if "_captured" not in self.__dict__:
            self.__dict__["_captured"] = CapturedLayers(self._layers, self)
        return self.__dict__["_captured"](images)

    def _layers(self, images: Tensor) -> Levels:
        return self.bbox_head(self.extract_feat(images))


def prepare(model: nn.Module, *, cuda: bool, captured: bool = False) -> None:
    """Prepare a detector for training; before it is wrapped for several processes.

    Args:
        captured: Whether steps replay CUDA graphs: on one GPU alone, and where the gradients of all images of
            a step are computed at once.
    """
    if not cuda:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        quicken(model)
        return
    # Channels-last is much slower on GPUs, since the numbers of channels are not multiples of eight.
    quicken_on_gpu(model)
    if captured:
        model.__class__ = CapturedDetector
