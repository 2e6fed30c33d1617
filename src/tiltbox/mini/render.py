"""Writing the mini set as a folder in DOTA format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from tiltbox.dota.images.pixels import write_png
from tiltbox.dota.labels import Labels, write_labels
from tiltbox.files.atomic import atomic_folder
from tiltbox.mini.scenes import Thing, scene

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
HEADER = ("imagesource:mini", "gsd:0.5")


def render_mini(out: Path, *, seed: int = 0, images: Mapping[Split, int], size: int = 256) -> None:
    """Render the mini set: ``out/{train,val,test}/{images,labelTxt}``, test without labels.

    The same seed, counts and size give the same pixels and labels on every machine.

    Args:
        out: The folder to write, whole or not at all.
        seed: A different seed gives different images of the same kind.
        images: Number of images per split; a split without images gets no folder.
        size: Side of the square images in pixels.
    """
    with atomic_folder(out, "download") as folder:
        first = 0
        for split in SPLITS:
            count = images.get(split, 0)
            if count:
                _render_split(folder / split, seed, first, count, size, labelled=split != "test")
            first += count


def render_image(seed: int, split: str, number: int, size: int = 256) -> tuple[np.ndarray, list[Thing]]:
    """One image of the set, uint8 BGR (size, size, 3), and its objects."""
    rng = np.random.Generator(np.random.PCG64([seed, SPLITS.index(split), number]))
    return scene(rng, size, number)


def _render_split(folder: Path, seed: int, first: int, count: int, size: int, *, labelled: bool) -> None:
    (folder / "images").mkdir(parents=True)
    if labelled:
        (folder / "labelTxt").mkdir()
    for number in range(count):
        name = f"P{first + number:04d}"
        image, things = render_image(seed, folder.name, number, size)
        write_png(folder / "images" / f"{name}.png", image)
        if labelled:
            write_labels(folder / "labelTxt" / f"{name}.txt", labels_of(things))


def labels_of(things: list[Thing]) -> Labels:
    """The objects as labels, their corners to a tenth of a pixel.

    >>> from tiltbox.mini.canvas import Pose
    >>> labels_of([Thing("ship", Pose(10, 10, angle=-90, length=8, width=4))]).qboxes.tolist()
    [[8.0, 6.0, 12.0, 6.0, 12.0, 14.0, 8.0, 14.0]]
    """
    qboxes = np.array([thing.pose.corners.ravel() for thing in things]).reshape(-1, 8)
    difficult = np.array([thing.difficult for thing in things], dtype=int)
    return Labels(qboxes.round(1), tuple(thing.name for thing in things), difficult, HEADER)
