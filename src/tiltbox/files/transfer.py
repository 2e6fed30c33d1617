"""Makes published files available: http(s) with resume and checksum, or a local file in place."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import requests
import urllib3

from tiltbox.errors import DataError
from tiltbox.files.atomic import cannot_write, require_writable, write_lock
from tiltbox.files.space import require_space
from tiltbox.progress import progress

log = logging.getLogger("tiltbox")

CHUNK = 2**16  # bytes
ATTEMPTS = 4  # in a row without progress
PAUSE = 0.5  # seconds before the second attempt; doubles with each
LONGEST_PAUSE = 60  # seconds, however long a busy server asks to wait

_BY_HAND = "check the address, or download the file by hand and give its folder with --archives"
_PAGE_STARTS = (b"<!doctype", b"<!--", b"<html", b"<head", b"<?xml")
_BUSY = (408, 429)  # and all from 500 on
_LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


class BrokenOffError(DataError):
    """A download broke off for good; what has arrived is kept."""


class _Broken(Exception):
    """The connection broke or the server is busy: worth another attempt, ``pause`` seconds later at least."""

    def __init__(self, reason: str, pause: float = 0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Unreached(_Broken):
    """The server gave no answer."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server that does not answer."""

    attempts: int = ATTEMPTS
    connect: float = 20  # seconds, for each of the host's numeric addresses
    answer: float = 60  # seconds without a byte


class _Part:
    """The part of a file that has arrived, and the version of that file, if the server gives one.

    Attributes:
        pieces: Whether it came in more than one answer.
        starts_over: Whether the server sent the whole file when asked for the rest.
    """

    def __init__(self, target: Path) -> None:
        self.pieces = self.starts_over = False
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part-version")

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".part")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> str | None:
        return self._note.read_text(encoding="utf-8") if self._note.exists() else None

    def begin(self, version: str | None) -> None:
        self.discard()
        self.pieces = False
        if version:
            self._note.write_text(version, encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)


def transfer(
    source: str | Path,
    target: Path,
    *,
    checksum: str | None = None,
    accepts: Callable[[Path], bool] | None = None,
    patience: Patience = Patience(),
) -> Path:
    """Make the file at ``source`` available and return its path.

    A path or ``file://`` address is used in place. An http(s) address is downloaded to ``target``: a broken
    transfer is resumed from ``<target>.part``, also by a later call, and the file gets its name only when it
    is complete and correct. It is resumed if a checksum will tell whether the pieces fit, or if the server
    says that they are of the same version of the file. A ``target`` that is already correct is not downloaded
    again.

    Args:
        source: http(s) address, ``file://`` address or path.
        target: Where to put the download.
        checksum: ``md5:<hex>`` or ``sha256:<hex>``.
        accepts: Whether the download is of the right kind: servers also answer with error pages.
        patience: When to give up.

    Raises:
        DataError: It cannot be downloaded, is a web page instead of a file, is not accepted, or has a
            different checksum.
        OutputError: ``target`` cannot be written, or there is no space for it.
    """
    path = _local(source)
    if path is not None:
        return _verified_local(path, checksum)
    url, target = str(source), Path(target)
    if target.is_file() and _is_right(target, checksum, accepts):
        return target
    require_writable(target.parent)
    with write_lock(target):
        if not (target.is_file() and _is_right(target, checksum, accepts)):  # another process downloaded it
            _fetch_whole(url, target, checksum, accepts, patience)
    return target


def _fetch_whole(
    url: str,
    target: Path,
    checksum: str | None,
    accepts: Callable[[Path], bool] | None,
    patience: Patience,
) -> None:
    part = _Part(target)
    try:
        _fetch(url, part, checksum, patience)
        if part.pieces and checksum and digest(part.path, checksum) != checksum:
            log.warning("%s: its pieces do not fit together; it is downloaded from the start", target.name)
            part.discard()
            _fetch(url, part, checksum, patience)
    except OSError as error:
        raise cannot_write(target.parent, error) from None
    _keep_only_right(url, part, checksum, accepts)
    part.become(target)


def announced_size(url: str, patience: Patience = Patience(connect=5, answer=10)) -> int:
    """The bytes of the file at an http(s) address, if the server gives them; else 0.

    It is asked as for a download, since some servers answer other questions differently.
    """
    try:
        with _get(url, 0, None, patience) as response:
            return _total(response) or 0
    except (DataError, _Broken):
        return 0  # the download itself will tell what is wrong


def arrived_bytes(target: Path) -> int:
    """The bytes of a download to ``target`` that broke off and can probably be resumed."""
    return _Part(target).size


def digest(path: Path, like: str) -> str:
    """The checksum of a file, of the kind that ``like`` (``md5:...`` or ``sha256:...``) starts with."""
    kind = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def verify(path: Path, checksum: str | None, where: str | Path) -> None:
    """Raise DataError if the file is a web page or does not have the checksum; ``where`` names it."""
    if is_web_page(path):
        raise _web_page(where)
    if checksum and (found := digest(path, checksum)) != checksum:
        raise DataError(
            where, f"has the checksum {found}, not {checksum}", "download it again, or from elsewhere"
        )


def is_web_page(path: Path) -> bool:
    return _start_of(path).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_STARTS)


def _local(source: str | Path) -> Path | None:
    scheme, separator, address = str(source).partition("://")
    if not separator:
        return Path(source)
    if scheme.lower() == "file":
        return Path("/", unquote(address.partition("/")[2]))
    if scheme.lower() not in ("http", "https"):
        remedy = "give an http(s) address, or download the file by hand and give its path"
        raise DataError(source, f"cannot be fetched by {scheme}", remedy)
    return None


def _verified_local(path: Path, checksum: str | None) -> Path:
    if not path.is_file():
        raise DataError(path, "file not found", "check the path")
    verify(path, checksum, path)
    return path


def _is_right(path: Path, checksum: str | None, accepts: Callable[[Path], bool] | None) -> bool:
    if checksum:
        return digest(path, checksum) == checksum
    return accepts is None or accepts(path)


def _keep_only_right(
    url: str, part: _Part, checksum: str | None, accepts: Callable[[Path], bool] | None
) -> None:
    try:
        verify(part.path, checksum, url)
        if accepts is not None and not accepts(part.path):
            start = _start_of(part.path)[:60].decode("latin-1")
            raise DataError(url, f"is damaged or another kind of file: it starts with {start!r}", _BY_HAND)
    except DataError:
        part.discard()
        raise


def _fetch(url: str, part: _Part, checksum: str | None, patience: Patience) -> None:
    """Bring ``part`` to its full length, with as many attempts as make progress."""
    failures, furthest = 0, part.size
    while True:
        try:
            return _continue(url, part, checksum, patience)
        except _Broken as error:
            # Progress beyond the furthest point so far: a server that cannot resume would keep this going
            # forever.
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= patience.attempts:
                raise _given_up(url, part, checksum, error) from None
            pause = max(error.pause, PAUSE * 2 ** (failures - 1))
            if part.size or error.pause:
                log.info("%s: %s; next attempt in %g s", part.name, error, pause)
        time.sleep(pause)


def _given_up(url: str, part: _Part, checksum: str | None, error: _Broken) -> DataError:
    if not part.size:
        problem = "cannot be reached" if isinstance(error, _Unreached) else "cannot be fetched"
        remedy = "check the address and the network, or try again later"
        return DataError(url, f"{problem} ({error})", remedy)
    resumes = (checksum or part.version) and not part.starts_over
    then = "it resumes where it stopped" if resumes else "it starts over"
    remedy = f"check the network, then run the command again; {then}"
    return BrokenOffError(url, f"broke off after {part.size} bytes ({error})", remedy)


def _continue(url: str, part: _Part, checksum: str | None, patience: Patience) -> None:
    """Request what is missing after ``part`` and append it, or start over if it cannot be resumed."""
    version = None if checksum else part.version
    offset = part.size if checksum or version else 0
    with _get(url, offset, version, patience) as response:
        total = _total(response)
        if response.status_code == 416 and total == offset:
            part.pieces = True
            return
        if response.status_code == 206 and _starts_at(response) == offset > 0 and _is_of(version, response):
            part.pieces = True
            _require_space(part, total, offset)
            _store(response, part, total)
        elif response.status_code in (206, 416):
            part.discard()
            raise _Broken("the server resumed at another position, or with another file")
        else:
            part.starts_over = bool(offset) and _is_of(version, response)
            _require_space(part, total, part.size)  # that of the part, which is removed
            part.begin(_version(response))
            _store(response, part, total)
    if total is not None and part.size != total:
        raise _Broken(f"{total} were announced")


def _get(url: str, offset: int, version: str | None, patience: Patience) -> requests.Response:
    """The answer to a request for what follows ``offset``, if the file is still of that version."""
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    if offset and version:
        headers["If-Range"] = version
    response = _answer(url, headers, patience)
    status = response.status_code
    if status in _BUSY or status >= 500:
        pause, wish = _asked_pause(response)
        raise _Broken(f"the server answers {status} {response.reason}{wish}", pause)
    if status not in (200, 206) and not (status == 416 and offset):
        raise DataError(url, f"the server answers {status} {response.reason}", _BY_HAND)
    if response.headers.get("Content-Type", "").startswith("text/html") and status != 416:
        raise _web_page(url)
    return response


def _answer(url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    timeout = (patience.connect, patience.answer)
    try:
        return requests.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.exceptions.SSLError as error:  # a ConnectionError, but not worth a retry
        raise DataError(url, f"cannot be fetched ({_cause(error)})", _BY_HAND) from None
    except requests.Timeout as error:
        seconds = timeout[not isinstance(error, requests.ConnectTimeout)]
        raise _Unreached(f"no answer within {seconds:g} s") from None
    except _LOST as error:
        raise _Unreached(_cause(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise DataError(url, f"cannot be fetched ({error})", "correct the address") from None


def _asked_pause(response: requests.Response) -> tuple[float, str]:
    """The seconds that a busy server asks to wait, within reason, and what to say if it asks for more."""
    try:
        asked = urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", ""))
    except urllib3.exceptions.InvalidHeader:
        return 0, ""
    if asked <= LONGEST_PAUSE:
        return asked, ""
    return LONGEST_PAUSE, f", and asks to wait {asked:.0f} s"


def _require_space(part: _Part, total: int | None, had: int) -> None:
    """Check, before anything is changed, that a file of which ``had`` bytes need no space fits."""
    if total is not None:
        require_space(part.path.parent, total - had)


def _store(response: requests.Response, part: _Part, total: int | None) -> None:
    """Append the body of the answer to ``part``."""
    chunks = None if total is None else -((part.size - total) // CHUNK)
    label = f"{part.name} (in 64 KiB)"
    with open(part.path, "ab") as file:
        file.writelines(progress(_arriving(response), label, chunks))


def _arriving(response: requests.Response) -> Iterator[bytes]:
    """The body as it was sent: some servers declare an archive's compression as that of their answer."""
    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise _Broken(_cause(error)) from None


def _total(response: requests.Response) -> int | None:
    """The length of the whole file, if the server gives it."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _starts_at(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _version(response: requests.Response) -> str | None:
    """What tells versions of the file apart; weak tags may be the same for different bytes."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _is_of(version: str | None, response: requests.Response) -> bool:
    return version is None or _version(response) in (None, version)


def _cause(error: BaseException) -> str:
    """The cause of an error that urllib3 and requests have wrapped, in the system's words."""
    through = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    while (inner := _wrapped(error)) is not None:
        error = inner
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was closed too early"
    if isinstance(error, socket.gaierror):
        through += "the host name cannot be resolved: "
    return through + (getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _wrapped(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((each for each in candidates if isinstance(each, BaseException)), None)


def _start_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _web_page(where: str | Path) -> DataError:
    problem = "is a web page, not the file (to sign in, say, or because Google Drive wants a confirmation)"
    return DataError(where, problem, "download the file in a browser and give its folder with --archives")
