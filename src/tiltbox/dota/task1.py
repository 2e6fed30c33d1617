"""Task1 files: oriented boxes as the DOTA server takes them, one ``Task1_<class>.txt`` a class.

A line is ``image score x1 y1 x2 y2 x3 y3 x4 y4``. The image column names a whole image or, in the raw output
of a detector, a patch; the corners are in pixels of whatever it names.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from tiltbox.dota.reading import CORRUPT, MAX_COORDINATE, decoded, read_bytes, require_class
from tiltbox.errors import DataError

WORDS = 10
_LINE = "%s %.9f" + 8 * " %.2f"  # nine decimals tell all float32 scores above 1/64 apart
_GIVE = "give a folder or zip of Task1_<class>.txt"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say; no clock makes two archives differ


@dataclass(frozen=True)
class ClassDetections:
    """The detections of one class, n rows.

    Attributes:
        images: The names of images or patches, n of them.
        scores: Shape (n,), float64.
        qboxes: Shape (n, 8), float64, pixels of the image or patch.
        source: The file they were read from.
        lines: The line of that file each was on, counted from 1; (n,).
    """

    images: tuple[str, ...]
    scores: np.ndarray
    qboxes: np.ndarray
    source: str = ""
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> ClassDetections:
        """The detections at ``rows``, a mask of shape (n,) or an array of indices."""
        rows = np.arange(len(self))[rows]
        lines = None if self.lines is None else self.lines[rows]
        images = tuple(self.images[row] for row in rows.tolist())
        return ClassDetections(images, self.scores[rows], self.qboxes[rows], self.source, lines)

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return self.source if self.lines is None else f"{self.source}:{self.lines[row]}"


def no_detections() -> ClassDetections:
    return ClassDetections((), np.empty(0), np.empty((0, 8)))


def task1_name(name: str) -> str:
    """The file name of a class.

    >>> task1_name("ship")
    'Task1_ship.txt'
    """
    return f"Task1_{name}.txt"


def write_task1(folder: Path, detections: Mapping[str, ClassDetections]) -> None:
    """Write ``Task1_<class>.txt`` for every class given, an empty one too, and ``Task1.zip`` of them all.

    Scores get nine decimals, coordinates two; rows stay in their order. The same detections give the same
    bytes. Files are written in place: stages write into a folder that only appears when complete.
    """
    texts = {task1_name(name): format_task1(found) for name, found in detections.items()}
    for name, text in texts.items():
        (Path(folder) / name).write_bytes(text)
    with zipfile.ZipFile(Path(folder) / "Task1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)


def format_task1(detections: ClassDetections) -> bytes:
    """The content of a Task1 file.

    >>> corners = np.array([[-0.001, 0, 4, 0, 4, 2.555, 0, 2]])
    >>> format_task1(ClassDetections(("P0006",), np.array([0.5]), corners))
    b'P0006 0.500000000 0.00 0.00 4.00 0.00 4.00 2.56 0.00 2.00\\n'
    """
    coordinates = np.round(detections.qboxes, 2) + 0.0  # adding 0.0 turns -0.0 into 0.0
    rows = zip(detections.images, detections.scores.tolist(), coordinates.tolist(), strict=True)
    return "".join(f"{_LINE}\n" % (image, score, *corners) for image, score, corners in rows).encode()


def read_task1(source: Path, classes: Collection[str]) -> dict[str, ClassDetections]:
    """Read the Task1 files of a folder or a zip, for every one of ``classes`` in that order.

    Blank lines, blanks and CRLF are accepted; numbers may be ``nan`` or ``inf``. A barely trained detector
    draws boxes of any size: coordinates beyond 1e7 pixels count as infinite. A class without a file has no
    detections.

    Raises:
        DataError: There is no such source or no Task1 file in it, a file is of no known class or cannot be
            read, or a line is malformed (with its number).
    """
    found = {}
    for where, file_name, content in _files(Path(source)):
        name = file_name.removeprefix("Task1_").removesuffix(".txt")
        require_class(name, classes, where)
        if name in found:
            raise DataError(where, f"there is a second {file_name}", "keep one of them")
        found[name] = parse_task1(content, where)
    if not found:
        raise DataError(source, "holds no Task1_<class>.txt", _GIVE)
    return {name: found.get(name, no_detections()) for name in classes}


def parse_task1(content: bytes, where: str | Path) -> ClassDetections:
    """Read the content of a Task1 file; ``where`` is its name for messages.

    >>> parse_task1(b"P0006 0.5 0 0 4 0 4 2 0 2\\r\\n", "Task1_ship.txt").images
    ('P0006',)
    """
    text = decoded(content, where)
    rows = [(number, line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    rows = [(number, words) for number, words in rows if words]
    try:
        numbers = np.array([words[1:] for _, words in rows], dtype=np.float64).reshape(len(rows), WORDS - 1)
    except ValueError:
        raise _malformed(rows, where) from None
    if text.count("_") > sum(words[0].count("_") for _, words in rows):  # NumPy reads 1_0 as 10
        raise _malformed(rows, where)
    numbers[:, 1:][np.abs(numbers[:, 1:]) > MAX_COORDINATE] *= np.inf
    lines = np.array([number for number, _ in rows], dtype=np.int64)
    return ClassDetections(
        tuple(words[0] for _, words in rows),
        numbers[:, 0].copy(),
        numbers[:, 1:].copy(),
        str(where),
        lines,
    )


def _files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Path for messages, bare name and content of each Task1 file."""
    if source.is_dir():
        for path in sorted(path for path in source.glob("Task1_*.txt") if path.is_file()):
            yield str(path), path.name, read_bytes(path)
    elif not source.is_file():
        raise DataError(source, "there is no such folder or zip", _GIVE)
    elif not zipfile.is_zipfile(source):
        raise DataError(source, "is neither a folder nor a zip of Task1 files", _GIVE)
    else:
        yield from _zipped_files(source)


def _zipped_files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if name.startswith("Task1_") and name.endswith(".txt") and not member.is_dir():
                    yield f"{source}/{member.filename}", name, archive.read(member)
    except CORRUPT as error:
        problem = f"cannot be read ({error or type(error).__name__})"
        raise DataError(source, problem, "write it again, without a password") from None


def _malformed(rows: list[tuple[int, list[str]]], where: str | Path) -> DataError:
    """The error for the first line that cannot be read."""
    for number, words in rows:
        if len(words) != WORDS:
            problem = f"has {len(words)} words, not the {WORDS} of 'image score x1 y1 x2 y2 x3 y3 x4 y4'"
            return DataError(f"{where}:{number}", problem, "correct the line")
        for word in words[1:]:
            if not _is_number(word):
                return DataError(f"{where}:{number}", f"'{word}' is no number", "correct the line")
    raise AssertionError("every line can be read")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
