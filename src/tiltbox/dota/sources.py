"""Images and their labels in folders of DOTA format, ``images/`` and ``labelTxt/``, checked as a whole."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltbox.dota.images.listing import list_images, warn_of_passed_over
from tiltbox.dota.images.pixels import image_size
from tiltbox.dota.labels import Labels, list_labels, read_labels
from tiltbox.dota.reading import image_name
from tiltbox.errors import DataError

log = logging.getLogger("tiltbox")


@dataclass(frozen=True)
class SourceImage:
    """One image; ``width`` and ``height`` in pixels, ``labels`` is None in a set without labels."""

    image: Path
    width: int
    height: int
    labels: Labels | None

    @property
    def name(self) -> str:
        return image_name(self.image)


def read_sources(folders: Sequence[Path], classes: Collection[str] | None = None) -> list[SourceImage]:
    """The images of all folders, with their labels; either all of them are labelled or none.

    All possible errors in them, except in the pixels, are found here.

    Raises:
        DataError: A folder has no images, a file is missing, malformed or occurs twice, or a class is not in
            ``classes``.
    """
    sources = [source for folder in folders for source in _read_folder(Path(folder), classes)]
    if not sources:
        where = ", ".join(map(str, folders)) or "sources"
        raise DataError(where, "no images found", "give folders with images/")
    _require_different_names(sources)
    _warn_of_shares(sources)
    if len({source.labels is None for source in sources}) == 2:
        bare = next(source for source in sources if source.labels is None).image.parent.parent
        raise DataError(bare, "has no labelTxt/, but another source has", "split them one by one")
    return sources


def label_files(images: Path, names: Sequence[str], labels: Path) -> dict[str, Path]:
    """The label file of each image of the folder ``images``, whose ``names`` are given without extension.

    Raises:
        DataError: An image has no label file in the folder ``labels``, or a label file has no image.
    """
    files = {image_name(path): path for path in list_labels(labels)}
    _require_none(sorted(set(names) - set(files)), labels, "no label file for image")
    _require_none(sorted(set(files) - set(names)), images, "no image for label file")
    return {name: files[name] for name in names}


def _read_folder(folder: Path, classes: Collection[str] | None) -> list[SourceImage]:
    paths = list_images(folder / "images")
    warn_of_passed_over(folder / "images")
    for path in paths:
        if path.stem.split() != [path.stem]:
            raise DataError(path, "has whitespace in its name, which result files do not allow", "rename it")
    if not (folder / "labelTxt").is_dir():
        _require_unlabelled(folder)
        return [SourceImage(path, *image_size(path), None) for path in paths]
    files = label_files(folder / "images", list(map(image_name, paths)), folder / "labelTxt")
    return [
        SourceImage(path, *image_size(path), read_labels(files[image_name(path)], classes)) for path in paths
    ]


def _require_unlabelled(folder: Path) -> None:
    """DOTA's archives unpack to labelTxt-v1.0 and the like; such a set has labels."""
    similar = sorted(path.name for path in folder.iterdir() if path.name.lower().startswith("label"))
    if similar:
        remedy = "rename it, or move it away if the images are to be split without labels"
        raise DataError(folder, f"contains {similar[0]}/ but no labelTxt/", remedy)


def _require_different_names(sources: Sequence[SourceImage]) -> None:
    first: dict[str, SourceImage] = {}
    for source in sources:
        if (other := first.setdefault(source.name, source)) is not source:
            problem = f"there is an image of that name in {other.image.parent}"
            raise DataError(source.image, problem, "rename one of them, or give each source once")


def _warn_of_shares(sources: Sequence[SourceImage]) -> None:
    corners = [source.labels.qboxes for source in sources if source.labels]
    if sum(map(len, corners)) and max(np.abs(each).max(initial=0) for each in corners) <= 1:
        log.warning(
            "%s: all corners of all objects are between 0 and 1, as if normalised, but are taken as pixels:"
            " multiply them by the image's width and height first",
            sources[0].image.parent.parent,
        )


def _require_none(names: list[str], folder: Path, problem: str) -> None:
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise DataError(folder, f"{problem} {listed}", "add what is missing or remove the rest")
