"""Runs a detector over many patches: read ahead, batch, detect, collect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tiltbox.dota.images.pixels import read_image
from tiltbox.errors import CheckpointError
from tiltbox.geometry.boxes import le90
from tiltbox.progress import progress

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample
    from mmengine.model import BaseModel

READERS = 4
T = TypeVar("T")


class _Sample(TypedDict):
    """One image as mmdet's data preprocessor takes it."""

    inputs: Tensor
    data_samples: DetDataSample


def detect_patches(
    model: nn.Module, images: list[Path], *, image_size: int, batch: int, label: str = "predict"
) -> dict[str, np.ndarray]:
    """Detections of ``model`` on patches.

    Args:
        model: A detector from :func:`build_detector`, in eval mode, on the device to use.
        images: Patch files.
        image_size: Length to which the longer side of a patch is resized; padded at right and bottom.
        batch: Patches per forward pass.
        label: Name of this step in progress messages.

    Returns:
        Columns of equal length n: ``patch`` (file stem), ``label`` (class index), ``score`` float32 and
        ``rboxes`` (n, 5) float32 in pixels of the patch file, radians, le90; in the order of ``images``,
        best first within a patch.

    Raises:
        CheckpointError: The outputs are not finite, which would pass for patches without objects.
    """
    nothing = np.empty(0, np.float32)
    parts = [(nothing.astype(object), nothing.astype(np.int64), nothing, nothing.reshape(0, 5))]
    with ThreadPoolExecutor(READERS) as readers, require_finite(model):
        groups = _groups(images, batch)
        for group, samples in progress(_ahead(readers, groups, image_size), label, total=len(groups)):
            for path, result in zip(group, _run(model, samples), strict=True):
                found = _columns(result)
                parts.append((np.full(len(found[0]), path.stem, dtype=object), *found))
    columns = map(np.concatenate, zip(*parts, strict=True))
    return dict(zip(("patch", "label", "score", "rboxes"), columns, strict=True))


def detect_images(
    model: nn.Module, images: list[np.ndarray], *, image_size: int, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each image (uint8, height × width × 3, BGR) what :func:`detect_patches` gives for a patch.

    Yields:
        ``label``, ``score`` and ``rboxes`` in pixels of the image. Call :func:`require_finite` first.
    """
    for group in _groups(images, batch):
        yield from map(_columns, _run(model, [_sample(image, image_size) for image in group]))


def require_finite(model: nn.Module) -> RemovableHandle:
    """Make ``model`` raise a CheckpointError for outputs that are not finite, until the handle is removed."""
    return model.get_submodule("bbox_head").register_forward_hook(_require_finite)


def _require_finite(
    head: nn.Module, inputs: tuple[object, ...], outputs: tuple[Sequence[Tensor], ...]
) -> None:
    if not all(torch.isfinite(level).all() for levels in outputs for level in levels):
        problem = "gives scores or boxes that are not finite, so its training diverged"
        raise CheckpointError("the checkpoint", problem, "train it again with a lower base_lr")


def _columns(result: DetDataSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and rboxes of one image, best first."""
    found = result.pred_instances.cpu()
    return found.labels.numpy(), found.scores.numpy(), le90(found.bboxes.numpy()).astype(np.float32)


def _groups(images: list[T], size: int) -> list[list[T]]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def _ahead(
    readers: Executor, groups: list[list[Path]], image_size: int
) -> Iterator[tuple[list[Path], list[_Sample]]]:
    """Each group with its samples; those of the next one are read while the caller works on this one."""

    def submit(group: list[Path]) -> list[Future[_Sample]]:
        return [readers.submit(_read_sample, path, image_size) for path in group]

    if not groups:
        return
    following = submit(groups[0])
    for group, next_group in zip(groups, [*groups[1:], []], strict=True):
        samples, following = following, submit(next_group)
        yield group, [sample.result() for sample in samples]


@torch.inference_mode()
def _run(model: BaseModel, samples: list[_Sample]) -> list[DetDataSample]:
    packed = {
        "inputs": [sample["inputs"] for sample in samples],
        "data_samples": [sample["data_samples"] for sample in samples],
    }
    return model.test_step(packed)


def _read_sample(path: Path, size: int) -> _Sample:
    return _sample(read_image(path), size, str(path))


def _sample(image: np.ndarray, size: int, path: str = "") -> _Sample:
    """Resized and padded like in training."""
    import cv2
    from mmdet.structures import DetDataSample

    from tiltbox.model.detector import PAD_VALUE

    height, width = image.shape[:2]
    scale = size / max(height, width)
    new = (round(width * scale), round(height * scale))
    if new != (width, height):
        image = cv2.resize(image, new, interpolation=cv2.INTER_LINEAR)
    padding = (0, size - new[1], 0, size - new[0])
    image = cv2.copyMakeBorder(image, *padding, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
    meta = {
        "img_path": path,
        "ori_shape": (height, width),
        "img_shape": (size, size),
        "scale_factor": (new[0] / width, new[1] / height),
    }
    return {"inputs": torch.from_numpy(image).permute(2, 0, 1), "data_samples": DetDataSample(metainfo=meta)}
