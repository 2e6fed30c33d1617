"""Patches as plain pixels in one file, so that a training need not decode them again in each epoch.

The variable TILTBOX_PIXELS names a folder for such files, best on a fast disk of the machine. A file is found
by the hash of the patches' contents, so trainings share it, and other patches have another. Without the
variable, and for patches that are not in the file, images are decoded: pixels are the same either way.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiltbox.dota.images.pixels import image_size, read_image
from tiltbox.errors import OutputError
from tiltbox.files.atomic import atomic_file, cannot_write, require_writable, write_json, write_lock
from tiltbox.files.space import require_space
from tiltbox.processes import cores, map_in_processes
from tiltbox.records import PatchManifest, read_record

log = logging.getLogger("tiltbox")
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

    Trainings that begin together wait for the one that decodes.

    Raises:
        DataError: A patch cannot be read.
        OutputError: The folder has no room, or cannot be written.
    """
    file = _file(patches)
    if file is None or _is_there(file):
        return
    try:
        require_writable(file.parent)
    except OutputError as error:
        remedy = f"set {VARIABLE} to a folder that can be written, or unset it"
        raise OutputError(error.where, error.problem, remedy) from error
    with write_lock(file.with_suffix("")):  # of neither file, since each is written under its own lock
        if not _is_there(file):
            _write(file, patches)


def _write(file: Path, patches: Path) -> None:
    images = [path for path in sorted((patches / "images").glob("*.png")) if _has_objects(patches, path)]
    sizes = [image_size(path)[::-1] for path in images]
    starts = accumulate((3 * height * width for height, width in sizes), initial=0)
    places = [Place(start, *size) for start, size in zip(starts, sizes, strict=False)]
    if not places:
        return
    remedy = f"unset {VARIABLE} to decode patches in each epoch"
    require_space(file.parent, places[-1].end, f"free some space, or {remedy}")
    tasks = list(zip(images, places, strict=True))
    log.info("decoding %d patches into %s, once for all trainings on them", len(tasks), file)
    with atomic_file(file) as new:
        _reserve(new, places[-1].end)
        shares = [tasks[start : start + SHARE] for start in range(0, len(tasks), SHARE)]
        workers = min(cores(), len(shares))
        map_in_processes(partial(_decode, new), shares, workers, "pixels", less_memory=remedy)
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


def _reserve(file: Path, size: int) -> None:
    """Take the disk's blocks at once: a process that writes to a map of a full disk would be killed."""
    with file.open("wb") as empty:
        try:
            os.posix_fallocate(empty.fileno(), 0, size)
        except OSError as error:
            raise cannot_write(file.parent.parent, error) from error


def _is_there(file: Path) -> bool:
    """Whether it is, as large as its index says."""
    if not (file.exists() and _index(file).exists()):
        return False
    *_, last = json.loads(_index(file).read_text()).values()
    return file.stat().st_size == Place(*last).end


def _index(file: Path) -> Path:
    return file.with_suffix(".json")


def _has_objects(patches: Path, image: Path) -> bool:
    labels = patches / "annfiles" / f"{image.stem}.txt"
    return labels.exists() and labels.stat().st_size > 0
