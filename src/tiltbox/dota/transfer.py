"""Fetching published files: http(s) with resume and checksum, or a local file where it lies."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from tiltbox.errors import DataError
from tiltbox.files import require_space, require_writable
from tiltbox.progress import progress

CHUNK = 2**16  # bytes; what arrived of the last one is lost when a connection breaks
ATTEMPTS = 4  # in a row that bring nothing new
PAUSE = 0.5  # seconds before the second attempt; doubles with each
TIMEOUT = (20, 60)  # seconds to connect, and to wait for more

_RESUME = "run the command again; it goes on where it stopped"


class _Broken(Exception):
    """The connection broke or the server is busy."""


_WORTH_ANOTHER = (
    _Broken,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def transfer(source: str | Path, target: Path, *, checksum: str | None = None) -> Path:
    """Make the file at ``source`` available and return where it lies.

    A path or ``file://`` address is used where it lies. An http(s) address is fetched to ``target``: a broken
    transfer is resumed from ``<target>.part``, also by a later call, and the file gets its name only when
    it is complete and right. A ``target`` that already is right is not fetched again.

    Args:
        source: http(s) address, ``file://`` address or path.
        target: Where to put what is fetched.
        checksum: ``md5:<hex>`` or ``sha256:<hex>``.

    Raises:
        DataError: It cannot be had, is a web page in place of a file, or has another checksum.
        OutputError: ``target`` cannot be written, or there is no space for it.
    """
    path = _local(source)
    if path is not None:
        return _verified_local(path, checksum)
    url, target = str(source), Path(target)
    if target.is_file() and (checksum is None or digest(target, checksum) == checksum):
        return target
    require_writable(target.parent)
    part = target.with_name(f"{target.name}.part")
    _fetch(url, part)
    _keep_only_right(url, part, checksum)
    os.replace(part, target)
    return target


def digest(path: Path, like: str) -> str:
    """The checksum of a file, of the kind that ``like`` (``md5:...`` or ``sha256:...``) starts with."""
    kind = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def verify(path: Path, checksum: str | None, where: str | Path) -> None:
    """Raise DataError if the file is a web page or does not have the checksum; ``where`` names it."""
    with open(path, "rb") as file:
        start = file.read(512)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise _web_page(where)
    if checksum and (found := digest(path, checksum)) != checksum:
        raise DataError(
            where, f"has the checksum {found}, not {checksum}", "fetch it again or from elsewhere"
        )


def _local(source: str | Path) -> Path | None:
    if str(source).startswith(("http://", "https://")):
        return None
    if str(source).startswith("file://"):
        return Path(unquote(urlsplit(str(source)).path))
    return Path(source)


def _verified_local(path: Path, checksum: str | None) -> Path:
    if not path.is_file():
        raise DataError(path, "there is no such file", "check the path")
    verify(path, checksum, path)
    return path


def _keep_only_right(url: str, part: Path, checksum: str | None) -> None:
    try:
        verify(part, checksum, url)
    except DataError:
        part.unlink()
        raise


def _fetch(url: str, part: Path) -> None:
    """Bring ``part`` to its full length, in as many attempts as bring it further."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _continue(url, part)
        except _WORTH_ANOTHER as error:
            # Against the furthest it ever came: a server that cannot resume would let it go on for ever.
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= ATTEMPTS:
                problem = f"broke off after {_size(part)} bytes ({_reason(error)})"
                raise DataError(url, problem, f"check the network, then {_RESUME}") from None
        time.sleep(PAUSE * 2 ** (failures - 1))


def _continue(url: str, part: Path) -> None:
    """Ask for what is missing behind ``part`` and append it, or start over if the server cannot resume."""
    offset = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with _get(url, headers) as response:
        total = _total(response)
        if response.status_code == 416:
            if total == offset:
                return
            part.unlink(missing_ok=True)
            raise _Broken("the part is longer than the file")
        resumed = response.status_code == 206 and _start(response) == offset
        if response.status_code == 206 and not resumed:
            part.unlink(missing_ok=True)
            raise _Broken("the server resumed at another place")
        _store(response, part, offset if resumed else 0, total)
    if total is not None and _size(part) != total:
        raise _Broken(f"{total} were announced")


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.exceptions.InvalidURL, requests.TooManyRedirects) as error:
        raise DataError(url, f"cannot be fetched ({error})", "correct the address") from None
    status = response.status_code
    if status == 429 or status >= 500:
        raise _Broken(f"the server answers {status} {response.reason}")
    if status >= 400 and status != 416:
        remedy = "check the address, or fetch the file by hand and give its folder"
        raise DataError(url, f"the server answers {status} {response.reason}", remedy)
    if response.headers.get("Content-Type", "").startswith("text/html") and status != 416:
        raise _web_page(url)
    return response


def _store(response: requests.Response, part: Path, offset: int, total: int | None) -> None:
    if total is not None:
        require_space(part.parent, total - offset)
    chunks = None if total is None else -((offset - total) // CHUNK)
    label = f"{part.name.removesuffix('.part')} (in 64 KiB)"
    with open(part, "ab" if offset else "wb") as file:
        for chunk in progress(response.iter_content(CHUNK), label, chunks):
            file.write(chunk)


def _total(response: requests.Response) -> int | None:
    """The length of the whole file, where the server tells."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _start(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _Broken) else "the connection was lost"


def _web_page(where: str | Path) -> DataError:
    problem = "is a web page, not the file (Google Drive hands one out where it wants a confirmation)"
    return DataError(where, problem, "fetch the file in a browser and give its folder with --archives")
