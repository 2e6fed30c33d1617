"""Download and verify archives, link a folder of the user, or render the synthetic mini set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tiltbox.configs import fingerprint
from tiltbox.dota.images.listing import EXTENSIONS as IMAGES
from tiltbox.dota.images.listing import list_images, warn_of_passed_over
from tiltbox.dota.labels import EXTENSIONS as LABELS
from tiltbox.dota.labels import HORIZONTAL, read_labels
from tiltbox.dota.reading import image_name
from tiltbox.dota.sources import label_files
from tiltbox.errors import DataError, OutputError
from tiltbox.files.archives import is_archive, unpack
from tiltbox.files.atomic import atomic_folder, write_json
from tiltbox.files.space import bytes_unpacked, require_space, require_space_for_all
from tiltbox.files.transfer import announced_size, arrived_bytes, transfer
from tiltbox.mini import render_mini
from tiltbox.provenance import Begun, beside
from tiltbox.settings.datasets import Archive, Dataset, Expected, Render

SPLITS = ("train", "val", "test")
Counts = dict[str, int | None]  # images and objects of a split; None for objects without labels
ARCHIVES = "archives"  # beside the output: the archives that were downloaded for it, by dataset


class SplitFolders(NamedTuple):
    """Where the images and labels of a split are; ``labels`` is None if there are none."""

    images: Path
    labels: Path | None


def download(
    dataset: Dataset, out: Path, *, archives: Path | None = None, file: Path | None = None
) -> dict[str, Any]:
    """Provide ``out/{train,val,test}/{images,labelTxt}`` and ``out/manifest.json``.

    A folder of the user is linked, never copied or changed. A complete result of the same settings stays.

    Args:
        dataset: The dataset to provide.
        out: The folder to write, whole or not at all.
        archives: A folder that already contains some or all of the archives. The others are downloaded to
            ``archives/<dataset>`` beside ``out``.
        file: The dataset file, for the record: another dataset of the same name would replace its data.

    Returns:
        The manifest: ``dataset``, ``source`` (its kind), ``fingerprint`` of the settings behind it,
        ``splits`` with the counts of ``images`` and ``objects`` (None without labels), ``archives`` with the
        checksums that were verified (None if none is known).

    Raises:
        DataError: Something is missing, malformed, corrupt or not as expected.
        OutputError: ``out`` cannot be written, contains something else or is being written by another
            process.
    """
    begun, out = Begun("download"), Path(out)
    manifest = _present(dataset, out)
    if manifest is not None:
        return manifest
    if out.name == ARCHIVES:
        problem = "is reserved for the archives of the folders beside it"
        raise OutputError(out, problem, "choose another folder with --out")
    reads = [path for path in (dataset.source.folder, archives) if path is not None]
    with atomic_folder(out, "download", reads=reads) as folder:
        _fill(dataset, folder, out, _archive_files(dataset, out, archives))
        manifest = _manifest(dataset, _checked(dataset, folder, shown_as=out))
        write_json(folder / "manifest.json", manifest)
    settings = dataset.model_dump(mode="json", include={"name", "source", "splits"})
    settings["file"] = file and os.path.relpath(file, out.parent)
    begun.record(beside(out), [out / "manifest.json"], settings=settings)
    return manifest


def _present(dataset: Dataset, out: Path) -> dict[str, Any] | None:
    """The manifest of an earlier download of the same settings, if all that it counts still exists."""
    if dataset.source.folder:
        return None  # linking again costs nothing and repairs broken links
    try:
        known = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        return known if known == _manifest(dataset, _checked(dataset, out, shown_as=out)) else None
    except (OSError, ValueError, DataError):
        return None


def _manifest(dataset: Dataset, splits: dict[str, Counts]) -> dict[str, Any]:
    archives = dataset.source.archives.files if dataset.source.archives else ()
    return {
        "dataset": dataset.name,
        "source": dataset.source.kind,
        "fingerprint": _fingerprint(dataset),
        "splits": splits,
        "archives": {archive.file: archive.checksum for archive in archives},
    }


def _fingerprint(dataset: Dataset) -> str:
    keys = ("source", "splits", "classes", "train_splits", "test_split", "test_labelled", "expected")
    return fingerprint({key: value for key, value in dataset.model_dump(mode="json").items() if key in keys})


def _fill(dataset: Dataset, folder: Path, place: Path, files: list[tuple[Archive, Path]]) -> None:
    if dataset.source.render:
        _render(dataset.source.render, folder)
    elif dataset.source.folder:
        _link(_split_folders(dataset, folder), folder, place)
    else:
        _unpack(files, folder, place)


def _render(render: Render, folder: Path) -> None:
    render_mini(folder, seed=render.seed, images=render.images, size=render.size)


def _link(splits: dict[str, SplitFolders], folder: Path, place: Path) -> None:
    """Link the splits in a folder that is moved to ``place`` afterwards."""
    for name, (images, labels) in splits.items():
        (folder / name).mkdir()
        for link, target in (("images", images), ("labelTxt", labels)):
            if target is not None:
                address = _address(target.resolve(), place.absolute() / name)
                (folder / name / link).symlink_to(address, target_is_directory=True)


def _address(target: Path, start: Path) -> str:
    """The path relative to ``start`` if in the current folder, which may be moved; else absolute."""
    inside = target.is_relative_to(Path.cwd()) and start.is_relative_to(Path.cwd())
    return os.path.relpath(target, start) if inside else str(target)


def _unpack(files: list[tuple[Archive, Path]], folder: Path, place: Path) -> None:
    require_space(place, bytes_unpacked(path for _, path in files))  # again: not every server announces sizes
    for archive, path in files:
        suffixes = IMAGES if archive.into.endswith("images") else LABELS
        unpack(path, folder / archive.into, suffixes, without=HORIZONTAL)


def _archive_files(dataset: Dataset, out: Path, own: Path | None) -> list[tuple[Archive, Path]]:
    """Every archive and its place, downloaded if necessary, but only once all can be had and have room."""
    source = dataset.source.archives
    if source is None:
        return []
    fetched = out.parent / ARCHIVES / dataset.name
    if own is not None and not own.is_dir():
        raise DataError(own, "folder not found", "give the folder of the archives")
    places = {archive: _place(archive.file, fetched, own) for archive in source.files}
    missing = [place for archive, place in places.items() if archive.by_hand and not place.is_file()]
    if missing:
        also = "".join(f", and so is {place.name}" for place in missing[1:])
        remedy = f"get it from {source.page} and put it there"
        raise DataError(missing[0], f"is missing and must be downloaded by hand{also}", remedy)
    urls = {archive: source.url(archive) for archive in source.files}
    have = [place for place in places.values() if place.is_file()]
    to_fetch = [
        (url, fetched / each.file) for each, url in urls.items() if url and not places[each].is_file()
    ]
    _require_space(have, to_fetch, out)
    return [(archive, _have(place, urls[archive], archive, fetched)) for archive, place in places.items()]


def _require_space(have: list[Path], to_fetch: list[tuple[str, Path]], out: Path) -> None:
    """Check, before hours of download, that all archives fit, and then what is in them.

    Args:
        have: The archives that are there.
        to_fetch: Address and place of the others.
        out: Where they will be unpacked.
    """
    sizes = {target: announced_size(url) for url, target in to_fetch}
    missing = [(target.parent, max(0, size - arrived_bytes(target))) for target, size in sizes.items()]
    require_space_for_all([(out.parent, bytes_unpacked(have) + sum(sizes.values())), *missing])


def _place(file: str, fetched: Path, own: Path | None) -> Path:
    """Where the archive is or, if it does not exist, where it should be."""
    if own is not None and ((own / file).is_file() or not (fetched / file).is_file()):
        return own / file
    return fetched / file


def _have(place: Path, url: str | None, archive: Archive, fetched: Path) -> Path:
    # The user's own archives are verified in place; only those in the folder of downloads may be replaced.
    if url is None or (place != fetched / archive.file and place.is_file()):
        return transfer(place, place, checksum=archive.checksum)
    return transfer(url, fetched / archive.file, checksum=archive.checksum, accepts=is_archive)


def _checked(dataset: Dataset, folder: Path, *, shown_as: Path) -> dict[str, Counts]:
    """Count images and objects of all splits, and raise DataError if anything does not match."""
    splits = _split_folders(dataset, folder)
    try:
        _require_splits(dataset, splits, folder)
        counts = {name: _counts(folders, dataset.classes) for name, folders in splits.items()}
    except DataError as error:  # name files by the folder that the user knows
        where = error.where.replace(str(folder), str(shown_as))
        raise DataError(where, error.problem.replace(str(folder), str(shown_as)), error.remedy) from None
    for name, expected in dataset.expected.items():
        _require_expected(counts.get(name), expected, f"{dataset.name}: expected.{name}")
    return counts


def _split_folders(dataset: Dataset, folder: Path) -> dict[str, SplitFolders]:
    """The folders of every split: the user's own, or those in ``folder``."""
    root = dataset.source.folder or folder
    if not root.is_dir():
        raise DataError(root, "folder not found", "correct source.folder of the dataset file")
    if dataset.splits:
        given = dataset.splits.items()
        return {
            name: SplitFolders(root / s.images, root / s.labels if s.labels else None) for name, s in given
        }
    found = {}
    for name in SPLITS:
        images, labels = root / name / "images", root / name / "labelTxt"
        if images.is_dir() or labels.is_dir():
            found[name] = SplitFolders(images, labels if labels.is_dir() else None)
    return found


def _require_splits(dataset: Dataset, splits: dict[str, SplitFolders], folder: Path) -> None:
    root = dataset.source.folder or folder
    remedy = "add it, or name it under splits"
    for name in dict.fromkeys([*dataset.train_splits, dataset.test_split]):
        if name not in splits:
            raise DataError(root / name / "images", "folder not found", remedy)
        needs_labels = name in dataset.train_splits or dataset.test_labelled
        if needs_labels and splits[name].labels is None:
            problem = f"folder not found, but {name} needs labels"
            raise DataError(root / name / "labelTxt", problem, remedy)


def _counts(folders: SplitFolders, classes: tuple[str, ...]) -> Counts:
    images = list_images(folders.images)
    warn_of_passed_over(folders.images)
    if not images:
        raise DataError(folders.images, "contains no images", "check that it is the right folder")
    if folders.labels is None:
        return {"images": len(images), "objects": None}
    if not folders.labels.is_dir():
        raise DataError(folders.labels, "folder not found", "correct splits of the dataset file")
    files = label_files(folders.images, list(map(image_name, images)), folders.labels)
    return {"images": len(images), "objects": sum(len(read_labels(path, classes)) for path in files.values())}


def _require_expected(found: Counts | None, expected: Expected, where: str) -> None:
    for key, number in expected.model_dump(exclude_none=True).items():
        count = found[key] if found else 0
        if count != number:
            problem = f"{number} {key} expected, but {count or 0} found"
            raise DataError(where, problem, "get the missing part, or correct the dataset file")
