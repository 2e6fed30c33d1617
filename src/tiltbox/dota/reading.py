"""Shared by the readers of all formats: listing a folder, and reading files as bytes and text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tiltbox.errors import DataError, choice_of

#: The largest plausible coordinate of a corner in pixels: ten times the longest side that OpenCV reads.
MAX_COORDINATE = 1e7


def plain_name(name: str) -> str:
    """The name in the usual form, where the same letters can be encoded in more than one.

    Some systems write é as one character, others as an e and an accent, and copying turns one into the other.

    >>> plain_name("cafe\u0301") == "caf\u00e9"
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def image_name(path: Path) -> str:
    """The name that an image and its label file share, without folder and extension."""
    return plain_name(path.stem)


def list_files(folder: Path, extensions: Collection[str], noun: str) -> list[Path]:
    """The files of a folder that end in one of ``extensions``, sorted; hidden ones are skipped.

    Args:
        extensions: Extensions in lower case, with the dot; those of files may be in upper case.
        noun: What to call such a file in messages.

    Raises:
        DataError: The folder does not exist, or two of the files differ only in their extension.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(folder, "folder not found", "check the path")
    # macOS leaves hidden "._P0001.png" files, which are not images.
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise DataError(folder, f"cannot be read ({error.strerror})", "check its permissions") from None
    named = (path for path in found if path.suffix.lower() in extensions and path.name[0] != ".")
    files = sorted(filter(is_file_or_lost, named))
    twice = [stem for stem, count in Counter(map(image_name, files)).items() if count > 1]
    if twice:
        raise DataError(folder, f"contains more than one {noun} named '{twice[0]}'", "keep one of them")
    return files


def is_file_or_lost(path: Path) -> bool:
    """Whether it is a file or a broken link: reading that is an error, skipping it would hide it."""
    return path.is_file() or not path.exists()


def read_bytes(path: Path) -> bytes:
    """The content of a file; DataError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path") from None


def decoded(content: bytes, where: str | Path) -> str:
    """The text of a file, without a byte order mark; ``where`` is its name for messages.

    Raises:
        DataError: It is not valid UTF-8 (with the first line that is not).

    >>> decoded(b"caf\\xc3\\xa9\\n", "P1.txt")
    'café\\n'
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}", "is not valid UTF-8", "save the file as UTF-8") from None


def require_class(name: str, classes: Collection[str], where: str | Path) -> None:
    """Raise DataError unless ``name`` is one of ``classes``."""
    if name not in classes:
        remedy = f"{choice_of(name, classes)} (--dataset names a dataset with other classes)"
        raise DataError(where, f"unknown class '{name}'", remedy)
