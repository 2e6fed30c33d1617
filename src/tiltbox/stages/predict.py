"""Run a trained detector over all patches of a split and keep every detection."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tiltbox.defaults import PREDICTION_BATCH
from tiltbox.devices.gpus import require_gpus
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images.listing import list_images
from tiltbox.dota.patches import MIN_SIZE, parse_patch_name
from tiltbox.errors import DataError, SettingsError
from tiltbox.model.variant import Variant
from tiltbox.processes import map_in_processes
from tiltbox.provenance import Begun, beside, file_hash

if TYPE_CHECKING:
    from tiltbox.dota.detections import Detections


class _Job(NamedTuple):
    """What every process needs to know; the arguments of :func:`predict`."""

    name: str
    variant: Variant
    checkpoint: Path | str
    classes: tuple[str, ...]
    image_size: int | None
    fallback_image_size: int
    batch: int


def predict(
    name: str,
    variant: Variant,
    checkpoint: Path | str,
    patches: Path,
    out: Path,
    *,
    classes: tuple[str, ...] = DOTA_V1_CLASSES,
    image_size: int | None = None,
    fallback_image_size: int = 1024,
    gpus: int | None = None,
    threads: int | None = None,
    batch: int = PREDICTION_BATCH,
) -> int:
    """Detect on ``patches/images`` and write the detections to a parquet file; returns their number.

    Boxes are in pixels of the patch as it is in the image, at whatever size the detector saw it.
    Scores above 0.05 and at most 2,000 boxes per patch are kept, after rotated NMS at 0.1.

    Args:
        checkpoint: tiltbox's own or a published one (file or address), fitting the variant exactly.
        image_size: Side to which patches are resized for the detector; None for the one it was trained with.
        fallback_image_size: The same if the checkpoint does not say what it was trained with.
        gpus: GPUs to share the patches between; 0 for the CPU; None for all.
        threads: CPU threads without a GPU; None for all.

    Raises:
        CheckpointError: The checkpoint is of another variant or number of classes.
        DataError: There are no patches, or one cannot be read.
    """
    from tiltbox.devices.leases import gpu_count, gpu_name, leased_gpus
    from tiltbox.devices.threads import cpu_threads
    from tiltbox.dota.detections import write_detections
    from tiltbox.model.checkpoint import is_address, local_copy

    begun = Begun("predict")

    if image_size is not None and image_size % 32:
        problem = f"{image_size} is not a multiple of 32"
        raise SettingsError("--image-size", problem, "the detector halves its input five times")
    images = list_images(patches / "images")
    if not images:
        raise DataError(
            patches / "images", "contains no patches", "cut the images with `tiltbox split` first"
        )
    available = gpu_count()
    gpus = available if gpus is None else require_gpus(gpus, available, "--gpus ")
    gpus = min(gpus, len(images))
    _require_original_scale(images)
    weights = local_copy(checkpoint)  # once, not in every process
    begun.knows({checkpoint if is_address(checkpoint) else weights: file_hash(weights)})
    begun.reads(*filter(Path.is_file, [patches / "manifest.json"]))  # patches of other tools may not have one
    with leased_gpus(gpus), cpu_threads(None if gpus else threads):
        job = _Job(name, variant, checkpoint, classes, image_size, fallback_image_size, batch)
        parts = _on_devices(job, images, [f"cuda:{i}" for i in range(gpus)] or ["cpu"])
    detections = _joined(parts, classes)
    write_detections(out, detections)
    settings = {"variant": name, "classes": list(classes), "image_size": image_size, "batch": batch}
    begun.record(beside(Path(out)), [Path(out)], settings=settings, gpu=gpu_name() if gpus else None)
    return len(detections.score)


def _require_original_scale(images: list[Path]) -> None:
    """Refuse the devkit's patch names: detections.parquet has no rate, so merge would misplace the boxes."""
    for image in images:
        scale = parse_patch_name(image.stem).scale
        if scale < MIN_SIZE:
            problem = f"is named as a patch at rate {scale:g}"
            raise DataError(image, problem, "cut the images with `tiltbox split`, which names window sizes")


def _on_devices(job: _Job, images: list[Path], devices: list[str]) -> list[dict[str, np.ndarray]]:
    """Contiguous shares of the patches, a process for each device; results in the order of the patches."""
    shares = [list(share) for share in np.array_split(np.array(images, dtype=object), len(devices))]
    tasks = list(zip(shares, devices, strict=True))
    if len(tasks) == 1:
        return [_detect(job, tasks[0])]
    detect = partial(_detect, job)
    return map_in_processes(detect, tasks, len(tasks), "devices", less_memory="use a smaller --batch")


def _detect(job: _Job, task: tuple[list[Path], str]) -> dict[str, np.ndarray]:
    from tiltbox.devices.leases import require_cuda
    from tiltbox.model import build_detector
    from tiltbox.model.checkpoint import load_exactly
    from tiltbox.model.fusing import fuse
    from tiltbox.model.inference import detect_patches

    images, device = task
    if device != "cpu":
        require_cuda()
    model = build_detector(job.variant, num_classes=len(job.classes))
    meta = load_exactly(model, job.checkpoint, job.name, job.classes)
    size = job.image_size or meta.get("image_size", job.fallback_image_size)
    return detect_patches(fuse(model.to(device).eval()), images, image_size=size, batch=job.batch)


def _joined(parts: list[dict[str, np.ndarray]], classes: tuple[str, ...]) -> Detections:
    from tiltbox.dota.detections import Detections

    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    names = {patch: parse_patch_name(patch) for patch in dict.fromkeys(columns["patch"])}
    found = [names[patch] for patch in columns["patch"]]
    return Detections.from_columns(
        image=[name.image for name in found],
        x=np.array([name.x for name in found], dtype=np.int32),
        y=np.array([name.y for name in found], dtype=np.int32),
        size=np.array([int(name.scale) for name in found], dtype=np.int32),
        classes=[classes[label] for label in columns["label"].tolist()],
        score=columns["score"],
        rboxes=columns["rboxes"],
    )
