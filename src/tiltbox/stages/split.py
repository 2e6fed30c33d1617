"""Cut images and their labels into patches with sliding windows."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from isal import isal_zlib

from tiltbox.defaults import LEAST_IOF, PATCH_OVERLAP, PATCH_SIZE, RATES
from tiltbox.dota.images.listing import list_images
from tiltbox.dota.images.pixels import pixels_in, read_image, write_png
from tiltbox.dota.labels import Labels, format_labels
from tiltbox.dota.patches import format_patch_name
from tiltbox.dota.sources import SourceImage, read_sources
from tiltbox.dota.windows import (
    CUT,
    Cutting,
    Window,
    objects_in_window,
    rows_in_window,
    window_iofs,
    without_area,
)
from tiltbox.errors import DataError, SettingsError
from tiltbox.files.atomic import atomic_folder, cannot_write
from tiltbox.files.space import bytes_of_patches, require_space
from tiltbox.layout import LEFT_OUT
from tiltbox.processes import cores, map_in_processes, stop_if_unwanted
from tiltbox.provenance import LABEL_FILES, Begun, beside, file_hash, matching
from tiltbox.records import PatchManifest, read_record, write_record

WITHOUT_AREA, OUTSIDE, CUT_BY_ALL = "without area", "outside the image", "cut by every patch"
BLACK = 16  # of 255: if no value is as high, nothing is visible


@dataclass(frozen=True)
class PatchCount:
    """What one patch contains: objects by class, how many of them are cut, and its name with checksums."""

    classes: Counter[str]
    cut: int
    contents: str


@dataclass(frozen=True)
class LeftOut:
    """An object that is not in any patch, and why.

    Attributes:
        number: The number of the object in its image, from 1.
    """

    image: str
    number: int
    name: str
    qbox: np.ndarray
    reason: str


@dataclass(frozen=True)
class ImageCount:
    """The result for one image: patches, objects on none of them, whether it is nearly black, its hash."""

    patches: list[PatchCount]
    left_out: list[LeftOut]
    black: bool
    file_hash: str


def split(
    sources: Sequence[Path],
    out: Path,
    *,
    size: int = PATCH_SIZE,
    overlap: int = PATCH_OVERLAP,
    rates: Sequence[float] = RATES,
    iof: float = LEAST_IOF,
    workers: int | None = None,
    classes: Collection[str] | None = None,
) -> dict[str, Any]:
    """Cut the images of ``sources`` and write ``out/{images,annfiles}`` and ``out/manifest.json``.

    Patches, their names and the objects they keep follow mmrotate's splitter (:mod:`tiltbox.dota.windows`).
    Every patch of a labelled set has an annotation file, which is empty if the patch has no objects; an
    unlabelled set has no ``annfiles``. Every object is on a patch, or is counted in the manifest and listed
    in ``out/left_out.csv`` with the reason: it has no area, it is (mostly) outside its image, or every patch
    cuts off too much of it. ``out`` appears when it is complete and replaces an earlier split. Each worker
    process keeps one image at a time in memory.

    Args:
        sources: Folders that contain ``images/`` and, in a labelled set, ``labelTxt/``.
        out: The folder to write.
        size: Side of a patch in pixels at rate 1.
        overlap: Pixels that neighbouring patches share at rate 1.
        rates: Size and overlap are divided by each of these; patches are never resized.
        iof: The least share of an object's area that a patch must contain to keep it.
        workers: Number of processes; all cores by default.
        classes: The class names that are accepted; by default, all.

    Returns:
        The manifest, as it is written.

    Raises:
        SettingsError: A window size, overlap, rate or iof is impossible.
        DataError: An image or label file is missing, malformed or occurs twice.
        OutputError: ``out`` cannot be written, lacks space, contains anything but a split or is being written
            by another process.
    """
    begun = Begun("split")
    cutting = Cutting(size, overlap, tuple(rates), iof)
    if workers is not None and workers < 1:
        raise SettingsError("workers", f"{workers} is not accepted", "give at least 1")
    with atomic_folder(out, "split", reads=sources) as folder:
        labels = (Path(source) / "labelTxt" for source in sources)
        begun.reads(*filter(Path.is_dir, labels), pattern=LABEL_FILES)
        images = read_sources(sources, classes)
        pixels = ((image.image, image.width * image.height) for image in images)
        require_space(Path(out), bytes_of_patches(pixels, len(set(rates))))
        (folder / "images").mkdir()
        if images[0].labels is not None:
            (folder / "annfiles").mkdir()
        counts = _cut_all(images, cutting, folder, out, workers)
        manifest = _manifest(sources, images, cutting, counts, classes)
        if left_out := [each for image in counts for each in image.left_out]:
            _write_left_out(folder / LEFT_OUT, left_out)
        content = write_record(folder / "manifest.json", manifest)
    in_order = zip(_largest_first(images), counts, strict=True)
    begun.knows({source.image: count.file_hash for source, count in in_order})
    begun.record(beside(Path(out)), matching(Path(out), "*.*"), settings=asdict(cutting))
    return content


def _cut_all(
    images: list[SourceImage], cutting: Cutting, folder: Path, out: Path, workers: int | None
) -> list[ImageCount]:
    tasks = _largest_first(images)
    cut = partial(_cut_image, cutting, folder, out)
    workers = min(workers or cores(), len(tasks))
    return map_in_processes(cut, tasks, workers, "split", prepare=partial(cv2.setNumThreads, 1))


def _largest_first(images: list[SourceImage]) -> list[SourceImage]:
    """Images by falling size, so that no core is left alone with a large one at the end."""
    return sorted(images, key=lambda image: -image.width * image.height)


def _cut_image(cutting: Cutting, folder: Path, out: Path, source: SourceImage) -> ImageCount:
    """Write the patches of one image to ``folder``, which becomes ``out``, and count what is on them."""
    image = read_image(source.image)
    height, width, _ = image.shape
    try:
        windows = cutting.windows(width, height)
        labels, left_out = _sorted_out(source, windows, cutting.iof, (0, 0, width, height))
        name = source.name
        patches = [_cut_patch(image, name, labels, window, cutting.iof, folder) for window in windows]
        black = bool(image.max(initial=0) < BLACK)
        return ImageCount(patches, left_out, black, file_hash(source.image))
    except OSError as error:
        raise cannot_write(out, error) from None


def _sorted_out(
    source: SourceImage, windows: list[Window], iof: float, frame: Window
) -> tuple[Labels | None, list[LeftOut]]:
    """The objects that may be on patches, and those that are not on any, with the reason."""
    if source.labels is None:
        return None, []
    qboxes = source.labels.qboxes
    flat, in_frame = without_area(qboxes), window_iofs(qboxes, frame)
    outside = ~flat & (in_frame == 0)  # if the image is smaller than its window, these may be in the padding
    held = np.zeros(len(qboxes), dtype=bool)
    for window in windows:
        held[rows_in_window(qboxes, window, iof)[0]] = True
    held &= ~outside
    reasons = np.select([flat, in_frame < iof], [WITHOUT_AREA, OUTSIDE], CUT_BY_ALL)
    left_out = [
        LeftOut(source.name, row + 1, source.labels.classes[row], qboxes[row], str(reasons[row]))
        for row in np.flatnonzero(~held).tolist()
    ]
    return source.labels[np.flatnonzero(~outside)], left_out


def _cut_patch(
    image: np.ndarray, stem: str, labels: Labels | None, window: Window, iof: float, folder: Path
) -> PatchCount:
    stop_if_unwanted()
    x0, y0, x1, _ = window
    name = format_patch_name(stem, x1 - x0, x0, y0)
    pixels = pixels_in(image, window)
    write_png(folder / "images" / f"{name}.png", pixels)
    contents = f"{name} {isal_zlib.crc32(pixels):08x}"
    if labels is None:
        return PatchCount(Counter(), 0, contents)
    objects = objects_in_window(labels, window, iof)
    text = format_labels(objects).encode()
    (folder / "annfiles" / f"{name}.txt").write_bytes(text)
    cut = int((objects.difficult == CUT).sum())
    return PatchCount(Counter(objects.classes), cut, f"{contents} {isal_zlib.crc32(text):08x}")


def _manifest(
    sources: Sequence[Path],
    images: list[SourceImage],
    cutting: Cutting,
    counts: list[ImageCount],
    classes: Collection[str] | None,
) -> PatchManifest:
    patches = [patch for image in counts for patch in image.patches]
    labels = [image.labels for image in images if image.labels is not None]
    found = sum((patch.classes for patch in patches), Counter())
    left_out = Counter(each.reason for image in counts for each in image.left_out)
    names = classes or sorted({name for each in labels for name in each.classes})
    return PatchManifest(
        sources=tuple(Path(source).resolve().name for source in sources),
        **asdict(cutting),
        labelled=bool(labels),
        images=len(images),
        nearly_black_images=sum(image.black for image in counts),
        patches=len(patches),
        empty_patches=sum(not patch.classes for patch in patches),
        objects=sum(len(each) for each in labels),
        objects_without_area=left_out[WITHOUT_AREA],
        objects_outside_images=left_out[OUTSIDE],
        objects_cut_by_every_patch=left_out[CUT_BY_ALL],
        objects_in_patches=found.total(),
        cut_objects=sum(patch.cut for patch in patches),
        classes={name: found[name] for name in names},
        contents=_hash_of(patch.contents for patch in patches),
    )


def _write_left_out(path: Path, left_out: list[LeftOut]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["image", "object", "class", "reason", *(f"{axis}{k}" for k in range(1, 5) for axis in "xy")]
        )
        for each in sorted(left_out, key=lambda each: (each.image, each.number)):
            writer.writerow([each.image, each.number, each.name, each.reason, *each.qbox.tolist()])


def patch_contents(folder: Path) -> tuple[str, str]:
    """The checksum of all pixels and labels in a folder's manifest, and that of the folder's content.

    Raises:
        DataError: The manifest is missing or malformed, or a patch cannot be read.
    """
    manifest = read_record(PatchManifest, folder / "manifest.json")
    if manifest is None:
        raise DataError(folder / "manifest.json", "file not found", "cut the images again")
    with ThreadPoolExecutor(cores()) as pool:
        lines = list(pool.map(partial(_contents_of, folder), list_images(folder / "images")))
    return manifest.contents, _hash_of(lines)


def _contents_of(folder: Path, patch: Path) -> str:
    annfile = folder / "annfiles" / f"{patch.stem}.txt"
    contents = f"{patch.stem} {isal_zlib.crc32(read_image(patch)):08x}"
    return f"{contents} {isal_zlib.crc32(annfile.read_bytes()):08x}" if annfile.is_file() else contents


def _hash_of(lines: Iterable[str]) -> str:
    """A hash by which later stages notice a changed pixel or label even if all counts are the same."""
    return hashlib.md5("\n".join(sorted(lines)).encode()).hexdigest()
