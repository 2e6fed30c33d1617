"""Cut images and their labels into patches with sliding windows."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tiltbox.dota.images import image_size, list_images, read_image, write_png
from tiltbox.dota.labels import Labels, read_labels, write_labels
from tiltbox.dota.patches import MIN_SIZE, format_patch_name, parse_patch_name
from tiltbox.dota.windows import CUT, Window, objects_in_window, scaled_windows, scales, without_area
from tiltbox.errors import DataError, OutputError, SettingsError
from tiltbox.files import require_space, require_writable, whole_folder, write_json
from tiltbox.progress import progress

PADDING = (104, 116, 124)  # BGR, as in mmrotate's configs
PNG_BYTES_PER_PIXEL = 2  # for the estimate; DOTA's images take 1.3 to 1.6


@dataclass(frozen=True)
class Cutting:
    """How images are cut; ``size`` and ``overlap`` in pixels at rate 1."""

    size: int
    overlap: int
    rates: tuple[float, ...]
    iof: float

    def __post_init__(self) -> None:
        positive = all(rate > 0 for rate in self.rates)
        if not (self.rates and positive and len(set(self.rates)) == len(self.rates)):
            remedy = "give different positive numbers"
            raise SettingsError("rates", f"{list(self.rates)} is not accepted", remedy)
        if not 0 < self.iof <= 1:
            raise SettingsError("iof", f"{self.iof} is not accepted", "give a share above 0, at most 1")
        for size, overlap in scales(self.size, self.overlap, self.rates):
            if size < MIN_SIZE:
                raise SettingsError("size", f"comes to windows of {size} pixels", f"give at least {MIN_SIZE}")
            if not 0 <= overlap < size:
                problem = f"comes to {overlap} pixels of windows of {size}"
                raise SettingsError("overlap", problem, "give one from 0 to less than the size")

    def windows(self, width: int, height: int) -> list[Window]:
        return scaled_windows(width, height, self.size, self.overlap, self.rates)


@dataclass(frozen=True)
class PatchCount:
    """What one patch holds: objects by class, and how many of them are cut."""

    classes: Counter[str]
    cut: int


@dataclass(frozen=True)
class Source:
    """One image to be cut; ``labels`` is None in a set that has none."""

    image: Path
    width: int
    height: int
    labels: Labels | None


def split(
    sources: Sequence[Path],
    out: Path,
    *,
    size: int = 1024,
    overlap: int = 200,
    rates: Sequence[float] = (1.0,),
    iof: float = 0.7,
    workers: int | None = None,
    classes: Collection[str] | None = None,
) -> dict:
    """Cut the images of ``sources`` and write ``out/{images,annfiles}`` and ``out/manifest.json``.

    Patches, their names and the objects they keep follow mmrotate's splitter (:mod:`tiltbox.dota.windows`).
    Every patch of a labelled set has an annotation file, an empty one where there is nothing on it; an
    unlabelled set has no ``annfiles`` at all. ``out`` appears when it is complete and takes the place of an
    earlier split. Each worker process holds one image at a time.

    Args:
        sources: Folders that hold ``images/`` and, in a labelled set, ``labelTxt/``.
        out: The folder to write.
        size: Side of a patch in pixels at rate 1.
        overlap: Pixels that neighbouring patches share at rate 1.
        rates: Size and overlap are divided by each of these; patches are never resized.
        iof: The least share of an object's area that a patch must hold to keep it.
        workers: Number of processes; all cores by default.
        classes: The class names that are accepted; by default, all.

    Returns:
        The manifest, as it is written.

    Raises:
        SettingsError: A window size, overlap, rate or iof is impossible.
        DataError: An image or label file is missing, malformed or there twice.
        OutputError: ``out`` cannot be written, lacks space or holds something else than a split.
    """
    cutting = Cutting(size, overlap, tuple(rates), iof)
    if workers is not None and workers < 1:
        raise SettingsError("workers", f"{workers} is not accepted", "give at least 1")
    out = Path(out).resolve()
    _require_replaceable(out, sources)
    require_writable(out.parent)
    images = _read_sources(sources, classes)
    require_space(out.parent, _estimated_bytes(images, cutting))
    with whole_folder(out) as folder:
        (folder / "images").mkdir()
        if _labelled(images):
            (folder / "annfiles").mkdir()
        patches = [patch for cut in _cut_all(images, cutting, folder, workers) for patch in cut]
        manifest = _manifest(sources, images, cutting, patches, classes)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _require_replaceable(out: Path, sources: Sequence[Path]) -> None:
    """Refuse to put a split in the place of anything but a split."""
    for source in sources:
        if Path(source).resolve().is_relative_to(out):
            raise OutputError(out, f"holds the source {source}", "choose another folder with --out")
    if out.exists() and not (out.is_dir() and _is_split(out)):
        raise OutputError(out, "holds something else than a split", "choose another folder with --out")


def _is_split(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if "manifest.json" in names or "images" not in names:
        return names <= {"manifest.json", "images", "annfiles"}
    # Snakemake removes the manifest before it runs the stage again.
    return names <= {"images", "annfiles"} and all(map(_is_patch, (folder / "images").iterdir()))


def _is_patch(path: Path) -> bool:
    try:
        parse_patch_name(path.stem)
    except DataError:
        return False
    return True


def _read_sources(sources: Sequence[Path], classes: Collection[str] | None) -> list[Source]:
    """Everything that can be wrong with the input, short of the pixels, comes up here."""
    images = [image for folder in sources for image in _read_source(Path(folder), classes)]
    if not images:
        where = ", ".join(map(str, sources)) or "sources"
        raise DataError(where, "there is no image", "give folders with images/")
    first: dict[str, Source] = {}
    for image in images:
        if (other := first.setdefault(image.image.stem, image)) is not image:
            remedy = "rename one of them, or give each source once"
            raise DataError(image.image, f"there is an image of that name in {other.image.parent}", remedy)
    if len({image.labels is None for image in images}) == 2:
        bare = next(image for image in images if image.labels is None).image.parent.parent
        raise DataError(bare, "has no labelTxt/, but another source has", "split them one by one")
    return images


def _read_source(folder: Path, classes: Collection[str] | None) -> list[Source]:
    paths = list_images(folder / "images")
    for path in paths:
        if path.stem.split() != [path.stem]:
            raise DataError(path, "has a blank in its name, which result files cannot hold", "rename it")
    labels = _read_label_folder(folder, [path.stem for path in paths], classes)
    return [Source(path, *image_size(path), labels and labels[path.stem]) for path in paths]


def _read_label_folder(
    folder: Path, names: list[str], classes: Collection[str] | None
) -> dict[str, Labels] | None:
    label_folder = folder / "labelTxt"
    if not label_folder.is_dir():
        _require_unlabelled(folder)
        return None
    files = {path.stem: path for path in label_folder.glob("*.txt") if not path.name.startswith(".")}
    _require_none(sorted(set(names) - set(files)), label_folder, "no label file for the image")
    _require_none(sorted(set(files) - set(names)), folder / "images", "no image for the label file")
    return {name: read_labels(files[name], classes) for name in names}


def _require_unlabelled(folder: Path) -> None:
    """DOTA's archives unpack to labelTxt-v1.0 and the like; such a set is not without labels."""
    similar = sorted(path.name for path in folder.iterdir() if path.name.lower().startswith("label"))
    if similar:
        remedy = "rename it, or move it away if the images are to be split without labels"
        raise DataError(folder, f"holds {similar[0]}/ but no labelTxt/", remedy)


def _require_none(names: list[str], folder: Path, problem: str) -> None:
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise DataError(folder, f"there is {problem} {listed}", "add what is missing or remove the rest")


def _estimated_bytes(images: list[Source], cutting: Cutting) -> int:
    windows = (window for image in images for window in cutting.windows(image.width, image.height))
    return sum((x1 - x0) * (y1 - y0) * PNG_BYTES_PER_PIXEL for x0, y0, x1, y1 in windows)


def _labelled(images: list[Source]) -> bool:
    return images[0].labels is not None


def _cut_all(
    images: list[Source], cutting: Cutting, folder: Path, workers: int | None
) -> Iterator[list[PatchCount]]:
    """Cut every image, in processes of their own unless there is but one to run."""
    # The largest first, so that no core is left alone with one at the end.
    tasks = [(image, cutting, folder) for image in sorted(images, key=lambda i: -i.width * i.height)]
    workers = min(workers or _cores(), len(tasks))
    if workers == 1:
        yield from progress(map(_cut_image, tasks), "split", len(tasks))
        return
    # A fork would copy the locks of OpenCV's and numpy's threads.
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            yield from progress(pool.map(_cut_image, tasks), "split", len(tasks))
    except BrokenProcessPool:
        problem = "a process was killed, as happens where memory runs out"
        raise SettingsError("workers", problem, "use fewer --workers") from None


def _cores() -> int:
    """The cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cut_image(task: tuple[Source, Cutting, Path]) -> list[PatchCount]:
    """Write the patches of one image and count what is on them."""
    source, cutting, folder = task
    image = read_image(source.image)
    height, width, _ = image.shape
    try:
        return [
            _cut_patch(image, source, window, cutting.iof, folder)
            for window in cutting.windows(width, height)
        ]
    except OSError as error:
        raise OutputError(folder, f"cannot write here ({error.strerror})", "free some space") from None


def _cut_patch(image: np.ndarray, source: Source, window: Window, iof: float, folder: Path) -> PatchCount:
    x0, y0, x1, _ = window
    name = format_patch_name(source.image.stem, x1 - x0, x0, y0)
    write_png(folder / "images" / f"{name}.png", _pixels(image, window))
    if source.labels is None:
        return PatchCount(Counter(), 0)
    labels = objects_in_window(source.labels, window, iof)
    write_labels(folder / "annfiles" / f"{name}.txt", labels)
    return PatchCount(Counter(labels.classes), int((labels.difficult == CUT).sum()))


def _pixels(image: np.ndarray, window: Window) -> np.ndarray:
    """The window's pixels, padded at the right and at the bottom where it reaches beyond the image."""
    x0, y0, x1, y1 = window
    patch = image[y0:y1, x0:x1]
    below, right = y1 - y0 - patch.shape[0], x1 - x0 - patch.shape[1]
    return cv2.copyMakeBorder(patch, 0, below, 0, right, cv2.BORDER_CONSTANT, value=PADDING)


def _manifest(
    sources: Sequence[Path],
    images: list[Source],
    cutting: Cutting,
    patches: list[PatchCount],
    classes: Collection[str] | None,
) -> dict:
    """What was cut and how; without labels all counts of objects are 0."""
    labels = [image.labels for image in images if image.labels is not None]
    found = sum((patch.classes for patch in patches), Counter())
    names = classes or sorted({name for each in labels for name in each.classes})
    return {
        "sources": [Path(source).resolve().name for source in sources],
        "size": cutting.size,
        "overlap": cutting.overlap,
        "rates": list(cutting.rates),
        "iof": cutting.iof,
        "labelled": bool(labels),
        "images": len(images),
        "patches": len(patches),
        "empty_patches": sum(not patch.classes for patch in patches),
        "objects": sum(len(each) for each in labels),
        "objects_without_area": sum(int(without_area(each.qboxes).sum()) for each in labels),
        "objects_in_patches": found.total(),
        "cut_objects": sum(patch.cut for patch in patches),
        "classes": {name: found[name] for name in names},
    }
