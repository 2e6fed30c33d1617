"""Check the content of a results folder against the records of its stages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiltbox.errors import DataError
from tiltbox.progress import progress
from tiltbox.provenance import (
    SUFFIX,
    Provenance,
    beside,
    file_hash,
    located,
    matching,
    read_provenance,
)
from tiltbox.stages.split import patch_contents

NEEDS_RECORD = (
    "train.json",
    "detections.parquet",
    "metrics.json",
    "complexity.json",
    "Task1.zip",
    "leaderboard.csv",
)


@dataclass(frozen=True)
class Verdict:
    """What was checked, and what does not match, one line each.

    Attributes:
        absent: Folders that stages read and that do not exist here, such as the patches if results come from
            another machine.
    """

    records: int
    files: int
    problems: tuple[str, ...]
    absent: tuple[str, ...] = ()


def verify(results: Path) -> Verdict:
    """Follow the records below ``results`` back to the images, and compare every file with its hash.

    It names files that changed or disappeared since a stage wrote or read them, files that a stage would have
    read if they had existed, records that were edited, results without a record, and patches whose pixels or
    labels differ from those that were cut.

    Args:
        results: A results folder of a dataset, of a variant, or of a stage.

    Raises:
        DataError: The folder does not exist or contains no record, or a record is malformed.
    """
    results = Path(results)
    if not results.is_dir():
        raise DataError(results, "folder not found", "give results/DATASET")
    records = _chain(sorted(results.rglob(f"*{SUFFIX}")))
    if not records:
        raise DataError(results, f"contains no *{SUFFIX}", "run the stages again: each writes one")
    checker = _Checker(records, _plain(results))
    for place, record in progress(records.items(), "verify", len(records)):
        checker.check_outputs(place, record)
    for place, record in records.items():
        checker.check_inputs(place, record)
    checker.require_records(results)
    return Verdict(len(records), len(checker.hashes), tuple(checker.problems), tuple(sorted(checker.absent)))


def _chain(places: list[Path]) -> dict[Path, Provenance]:
    """The records at these places, and those of their sources; sources first."""
    found: dict[Path, Provenance] = {}
    folders: set[Path] = set()
    todo = list(places)
    while todo:
        place = _plain(todo.pop())
        if place in found:
            continue
        found[place] = read_provenance(place)
        for folder in {path.parent for path, _ in _files(place, found[place].inputs)} - folders:
            folders.add(folder)
            todo += _records_near(folder)
    return dict(sorted(found.items(), key=lambda item: (item[1].started, item[0])))


def _records_near(folder: Path) -> Iterator[Path]:
    """The records, in a folder or beside it, that may be of the stage that wrote its files."""
    yield from folder.glob(f"*{SUFFIX}")
    if beside(folder).is_file():
        yield beside(folder)


class _Checker:
    """Compares files with records; each file is read once and named once."""

    def __init__(self, records: dict[Path, Provenance], results: Path) -> None:
        self._results = results
        self.hashes: dict[Path, str | None] = {}
        self.problems: list[str] = []
        self.absent: set[str] = set()
        self._named: set[Path] = set()
        self._written = {
            path: found for place, record in records.items() for path, found in _files(place, record.outputs)
        }

    def check_outputs(self, place: Path, record: Provenance) -> None:
        if not record.intact:
            self._name(place, "has been edited since the stage wrote it")
        for path, expected in _files(place, record.outputs):
            self._compare(path, expected, f"since 'tiltbox {record.stage}' wrote it")
        if record.stage == "split":
            self._require_patches(place, record)

    def check_inputs(self, place: Path, record: Provenance) -> None:
        """To be called after all outputs: the record of the stage that wrote a file names the change best."""
        for path, expected in _files(place, record.inputs):
            if not (path in self._written or path.parent.exists() or path.is_relative_to(self._results)):
                self.absent.add(_shown(path.parent))
            else:
                self._compare(path, expected, f"since 'tiltbox {record.stage}' read it for {_shown(place)}")
        for folder in record.folders:
            self._require_nothing_new(place, record, located(place, folder.path), folder.pattern)

    def require_records(self, results: Path) -> None:
        """Name results that are not in any record."""
        for path in sorted(results.rglob("*")):
            if path.name in NEEDS_RECORD and _plain(path) not in self._written:
                self._name(_plain(path), "has no record of the stage that wrote it")

    def _compare(self, path: Path, expected: str, since: str) -> None:
        found = self._hash(path)
        if found is None:
            self._name(path, f"is gone {since}")
        elif found != expected:
            self._name(path, f"has changed {since}")

    def _hash(self, path: Path) -> str | None:
        if path not in self.hashes:
            self.hashes[path] = file_hash(path) if path.is_file() else None
        return self.hashes[path]

    def _require_nothing_new(self, place: Path, record: Provenance, folder: Path, pattern: str) -> None:
        known = {path for path, _ in _files(place, record.inputs)}
        for path in matching(folder, pattern):
            if _plain(path) not in known:
                self._name(_plain(path), f"is new since 'tiltbox {record.stage}' read the folder")

    def _require_patches(self, place: Path, record: Provenance) -> None:
        """Check patches by the checksum of all pixels and labels in the manifest, itself an output."""
        for path, _ in _files(place, record.outputs):
            if path.name == "manifest.json" and path.is_file() and path not in self._named:
                try:
                    expected, found = patch_contents(path.parent)
                except DataError as error:
                    self._name(Path(error.where), error.problem)
                    continue
                if found != expected:
                    self._name(
                        path.parent, "contains patches whose pixels or labels differ from those that were cut"
                    )

    def _name(self, path: Path, problem: str) -> None:
        if path not in self._named:
            self._named.add(path)
            self.problems.append(f"{_shown(path)}: {problem}")


def _files(place: Path, entries: dict[str, str]) -> list[tuple[Path, str]]:
    """The files of a record, without addresses."""
    return [(located(place, name), found) for name, found in entries.items() if "://" not in name]


def _plain(path: Path) -> Path:
    """The path, absolute and without ``..``; links stay."""
    return Path(os.path.abspath(path))


def _shown(path: Path) -> str:
    """The path as seen from the current folder."""
    return os.path.relpath(path)
