"""Unpacks published archives, whatever folders they contain."""

from __future__ import annotations

import errno
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tiltbox.errors import DataError
from tiltbox.files.atomic import cannot_write
from tiltbox.progress import progress

#: The exceptions raised by reading a damaged or encrypted zip or tar archive.
CORRUPT = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    UnicodeDecodeError,
)

_CHUNK = 2**20  # bytes
_AGAIN = "delete it and run the command again, or download it again"


def unpack(archive: Path, folder: Path, suffixes: Collection[str], *, without: Collection[str] = ()) -> int:
    """Unpack the files of a zip or tar archive that end in one of ``suffixes`` straight into ``folder``.

    Only the last part of a name counts, so an archive of any layout gives the same flat folder and cannot
    write elsewhere. Links and hidden files are skipped.

    Args:
        archive: The archive to read.
        folder: The folder to write into.
        suffixes: In lower case, with the dot; those of files may be in upper case.
        without: Parts of the names of folders whose files are skipped, in lower case; those of folders may
            be in upper case.

    Returns:
        How many files were unpacked.

    Raises:
        DataError: The archive is missing, truncated, corrupt or of another kind, contains no such file, or
            contains a file whose name exists in ``folder``.
        OutputError: ``folder`` cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    wanted, count = partial(_wanted, suffixes=suffixes, without=without), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in progress(_members(archive, wanted), archive.name):
            _write(_chunks(content, archive), folder / _path(name).name, f"{archive}:{name}")
            count += 1
    except OSError as error:
        raise cannot_write(folder, error) from None
    if not count:
        raise DataError(
            archive, f"contains no {', '.join(suffixes)} file", "check that it is the right archive"
        )
    return count


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive, judging by its start or its end."""
    return _is_tar(path) or zipfile.is_zipfile(path)


def _members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted files of the archive, each open while it is the current one."""
    with _reading(archive):
        open(archive, "rb").close()  # the checks below would take an unreadable file for another kind
        if _is_tar(archive):  # first: a tar archive whose last member is a zip ends like a zip
            yield from _tar_members(archive, wanted)
        elif zipfile.is_zipfile(archive):
            yield from _zip_members(archive, wanted)
        else:
            raise DataError(archive, "is not a complete zip or tar archive", _AGAIN)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except CORRUPT as error:
        # An error of the file system, not of the decompressor or of a seek in a damaged zip.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise DataError(archive, f"cannot be read ({error.strerror})", "check the path") from None
        problem = f"is truncated or corrupt ({error or type(error).__name__})"
        raise DataError(archive, problem, _AGAIN) from None


def _zip_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            link = stat.S_ISLNK(member.external_attr >> 16)
            if not member.is_dir() and not link and wanted(member.filename):
                with file.open(member) as content:
                    yield member.filename, content


def _tar_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as file:
        for member in file:
            if member.isreg() and wanted(member.name):
                content = file.extractfile(member)
                assert content is not None  # it is None only for links and folders
                yield member.name, content
        # tarfile takes a cut between two members for the end, which is in fact a block of zeros. And the
        # checksum of a compressed archive is only compared when its last byte is read.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("its end marker is missing")
        while file.fileobj.read(_CHUNK):
            pass


def _is_tar(archive: Path) -> bool:
    try:
        return tarfile.is_tarfile(archive)
    except CORRUPT:
        return False


def _wanted(name: str, suffixes: Collection[str], without: Collection[str]) -> bool:
    path = _path(name)
    unwanted = any(mark in part.lower() for part in path.parts[:-1] for mark in without)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in suffixes and not unwanted and not hidden


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))  # some archives from Windows have backslashes


def _chunks(content: IO[bytes], archive: Path) -> Iterator[bytes]:
    with _reading(archive):
        while chunk := content.read(_CHUNK):
            yield chunk


def _write(chunks: Iterator[bytes], target: Path, where: str) -> None:
    if target.exists():
        problem = f"another file named {target.name} was unpacked before it"
        raise DataError(where, problem, "remove one of the two from the archives")
    with open(target, "wb") as file:
        file.writelines(chunks)
