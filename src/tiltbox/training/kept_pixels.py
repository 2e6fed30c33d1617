"""Patches as plain pixels in one file, so that a training need not decode them again in each epoch.

The variable TILTBOX_PIXELS names a folder for such files, best on a fast disk of the machine. A file is found
by the hash of the patches' contents, so trainings share it, and other patches have another. Without the
variable, and for patches that are not in the file, images are decoded: pixels are the same either way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiltbox.dota.images.pixels import image_size, read_image
from tiltbox.files.atomic import atomic_file, write_json
from tiltbox.files.space import require_space
from tiltbox.processes import cores, map_in_processes
from tiltbox.records import PatchManifest, read_record

VARIABLE = "TILTBOX_PIXELS"
SHARE = 64  # patches that a process decodes at a time


class Place(NamedTuple):
    """Where a patch is in the file: its first byte, height and width."""

    start: int
    height: int
    width: int

    @property
    def end(self) -> int:
        return self.start + 3 * self.height * self.width


def keep_pixels(patches: Path) -> None:
    """Decode the patches with objects into the folder that the variable names, unless they are there.

    Raises:
        DataError: A patch cannot be read.
        OutputError: The folder has no room, or cannot be written.
    """
    file = _file(patches)
    if file is None or _is_there(file):
        return
    images = [path for path in sorted((patches / "images").glob("*.png")) if _has_objects(patches, path)]
    sizes = [image_size(path)[::-1] for path in images]
    starts = accumulate((3 * height * width for height, width in sizes), initial=0)
    places = [Place(start, *size) for start, size in zip(starts, sizes, strict=False)]
    if not places:
        return
    remedy = f"free some space, or unset {VARIABLE} to decode patches in each epoch"
    require_space(file.parent, places[-1].end, remedy)
    tasks = list(zip(images, places, strict=True))
    with atomic_file(file) as new:
        with new.open("wb") as empty:
            empty.truncate(places[-1].end)
        shares = [tasks[start : start + SHARE] for start in range(0, len(tasks), SHARE)]
        map_in_processes(partial(_decode, new), shares, min(cores(), len(shares)), "pixels")
    write_json(_index(file), {path.stem: place for path, place in tasks})


def pixels_of(image: Path) -> np.ndarray:
    """The pixels of a patch, (h, w, 3) as BGR, as :func:`read_image` gives them."""
    patches, name = image.parent.parent, image.stem
    pixels, places = _kept(patches, os.environ.get(VARIABLE))
    if name not in places:
        return read_image(image)
    place = places[name]
    return np.array(pixels[place.start : place.end]).reshape(place.height, place.width, 3)


def _decode(file: Path, share: Sequence[tuple[Path, Place]]) -> None:
    pixels = np.memmap(file, np.uint8, "r+")
    for image, place in share:
        pixels[place.start : place.end] = read_image(image).reshape(-1)
    pixels.flush()


@cache
def _kept(patches: Path, folder: str | None) -> tuple[np.ndarray, dict[str, Place]]:
    """The file, and where each patch is in it; for as long as the process reads."""
    file = _file(patches)
    if file is None or not _is_there(file):
        return np.empty(0, np.uint8), {}
    places = {name: Place(*place) for name, place in json.loads(_index(file).read_text()).items()}
    return np.memmap(file, np.uint8, "r"), places


def _file(patches: Path) -> Path | None:
    folder = os.environ.get(VARIABLE)
    manifest = read_record(PatchManifest, patches / "manifest.json") if folder else None
    return Path(folder) / f"{manifest.contents}.pixels" if folder and manifest else None


def _is_there(file: Path) -> bool:
    return file.exists() and _index(file).exists()


def _index(file: Path) -> Path:
    return file.with_suffix(".json")


def _has_objects(patches: Path, image: Path) -> bool:
    labels = patches / "annfiles" / f"{image.stem}.txt"
    return labels.exists() and labels.stat().st_size > 0
