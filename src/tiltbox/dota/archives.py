"""Unpacking published archives, whichever folders they were packed in."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tiltbox.dota.images import EXTENSIONS
from tiltbox.errors import DataError, OutputError
from tiltbox.progress import progress

IMAGES, LABELS = EXTENSIONS, (".txt",)

#: Parts of the names of folders in which DOTA's archives keep horizontal boxes beside the oriented ones.
HORIZONTAL = ("reclabeltxt", "hbb", "horizontal")

_CORRUPT = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


def unpack(archive: Path, folder: Path, suffixes: Collection[str]) -> int:
    """Unpack the files of a zip or tar archive that end in one of ``suffixes`` straight into ``folder``.

    Only the last part of a name counts, so an archive of any layout gives the same flat folder and none can
    write elsewhere. Links, hidden files and label files of horizontal boxes are passed over.

    Returns:
        How many files were unpacked.

    Raises:
        DataError: The archive is missing, truncated, corrupt or of another kind, holds no such file, or
            holds one of a name that ``folder`` has already.
        OutputError: ``folder`` cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    try:
        for name, content in progress(_members(archive, suffixes), archive.name):
            _write(content, folder / _path(name).name, f"{archive}:{name}")
            count += 1
    except _CORRUPT as error:
        if isinstance(error, OSError) and error.errno:  # the file system's, not the decompressor's
            raise OutputError(folder, f"cannot write here ({error.strerror})", "free some space") from None
        problem = f"is truncated or corrupt ({error or type(error).__name__})"
        raise DataError(archive, problem, "delete it and run the command again, or fetch it anew") from None
    if not count:
        raise DataError(archive, f"holds no {', '.join(suffixes)} file", "check that it is the right archive")
    return count


def _members(archive: Path, suffixes: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted files of the archive, each open while it is the current one."""
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, suffixes)
    elif _is_tar(archive):
        yield from _tar_members(archive, suffixes)
    elif not archive.is_file():
        raise DataError(archive, "there is no such file", "check the path")
    else:
        raise DataError(archive, "is no complete zip or tar archive", "fetch it anew")


def _zip_members(archive: Path, suffixes: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if not member.is_dir() and _wanted(member.filename, suffixes):
                with file.open(member) as content:
                    yield member.filename, content


def _tar_members(archive: Path, suffixes: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        for member in file:
            if member.isreg() and _wanted(member.name, suffixes):
                yield member.name, file.extractfile(member)
        # tarfile takes a cut between two members for the end, which really is a block of zeros; and the
        # checksum of a compressed archive is compared only by who reads to its last byte.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it has no end mark")
        while file.fileobj.read(2**20):
            pass


def _is_tar(archive: Path) -> bool:
    try:
        return archive.is_file() and tarfile.is_tarfile(archive)
    except (EOFError, zlib.error, lzma.LZMAError):
        return False


def _wanted(name: str, suffixes: Collection[str]) -> bool:
    path = _path(name)
    horizontal = any(mark in part.lower() for part in path.parts[:-1] for mark in HORIZONTAL)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in suffixes and not horizontal and not hidden


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))  # some archives from Windows have backslashes


def _write(content: IO[bytes], target: Path, where: str) -> None:
    if target.exists():
        problem = f"another file named {target.name} was unpacked before it"
        raise DataError(where, problem, "take one of the two out of the archives")
    with open(target, "wb") as file:
        shutil.copyfileobj(content, file, 2**20)
