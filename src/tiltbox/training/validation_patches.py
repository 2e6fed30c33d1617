"""Which patches a detector is validated on.

Whole images of the training set are held out, since patches of one image overlap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from tiltbox.dota.labels import list_labels, read_labels
from tiltbox.dota.patches import parse_patch_name
from tiltbox.errors import DataError
from tiltbox.records import PatchManifest


def patches_to_validate(folder: Path, most: int, images: Collection[str] | None = None) -> list[Path]:
    """Label files of at most ``most`` patches, spread evenly over those of ``images``, or over all if None.

    Raises:
        DataError: There are none.
    """
    found = list_labels(folder / "annfiles") if (folder / "annfiles").is_dir() else []
    if images is not None:
        found = [path for path in found if parse_patch_name(path.stem).image in images]
    if not found:
        raise DataError(
            folder, "contains no labelled patches to validate on", "cut them with `tiltbox split`"
        )
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def contents_of(labels: Iterable[Path]) -> str:
    """A hash of the names of patches, which say where they were cut, and of their labels."""
    found = hashlib.blake2b(digest_size=16)
    for path in labels:
        content = path.read_bytes()
        found.update(f"{path.stem} {len(content)} ".encode() + content)
    return found.hexdigest()


def images_held_out(patches: Path, share: float) -> list[str]:
    """The names of the images to hold out of a folder of patches, sorted; none where ``share`` is 0.

    The choice depends only on the images, not on the seed of the training.

    Raises:
        DataError: There is only one image.
    """
    if not share:
        return []
    names = {parse_patch_name(path.stem).image for path in list_labels(patches / "annfiles")}
    if len(names) < 2:
        problem = "contains patches of one image only, so none can be held out"
        raise DataError(patches, problem, "set validation: share to 0 in the schedule")
    return chosen(names, share)


def chosen(names: Iterable[str], share: float) -> list[str]:
    """About this share of the names, at least one and not all.

    >>> chosen(["P1", "P2", "P3", "P4"], 0.5)
    ['P2', 'P3']
    """
    mixed = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(max(1, round(share * len(mixed))), len(mixed) - 1)
    return sorted(mixed[:count])


def without(
    manifest: PatchManifest, patches: Path, images: Collection[str], classes: tuple[str, ...]
) -> PatchManifest:
    """The manifest with the counts of what remains for training.

    Raises:
        DataError: No objects are left, or none are held out.
    """
    if not images:
        return manifest
    found = list_labels(patches / "annfiles")
    left = [path for path in found if parse_patch_name(path.stem).image not in images]
    objects = [len(read_labels(path, classes)) for path in left]
    held_out = (read_labels(path, classes) for path in set(found) - set(left))
    if all(labels.difficult.all() for labels in held_out):
        names = ", ".join(sorted(images)[:3])
        problem = f"the images held out of it for validation ({names}, …) contain no objects"
        raise DataError(patches, problem, "raise validation: share in the schedule, or set it to 0")
    if not any(objects):
        problem = "contains objects only in the images held out for validation"
        raise DataError(patches, problem, "lower validation: share in the schedule, or train on more images")
    counts = {
        "images": manifest.images - len(images),
        "patches": len(left),
        "empty_patches": objects.count(0),
        "objects_in_patches": sum(objects),
    }
    return manifest.model_copy(update=counts)
