"""The table of docs/faults.md: a server at fault, what the user sees, what is there afterwards."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tiltbox.errors import CheckpointError, DataError
from tiltbox.files import transfer as module
from tiltbox.files.archives import is_archive
from tiltbox.files.transfer import Patience, transfer
from tiltbox.model.checkpoint import local_copy

DOCUMENT = Path(__file__).parents[2] / "docs/faults.md"
PATIENCE = Patience(attempts=3, answer=0.1)
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def packed(seed: int) -> bytes:
    """A zip, which is what an archive of images and a file of weights have in common."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("P1.png", random.Random(seed).randbytes(200_000))
    return memory.getvalue()


OLD, NEW = packed(1), packed(2)
THIRD = len(OLD) // 3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.headers["Range"])
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)
        self.close_connection = True

    def log_message(self, *args):
        pass


def sends(content=OLD, *, part=None, ranges=True, lie=0, silent=False, reset=False, tags=(("ETag", '"1"'),)):
    """An answer with the file, of which only ``part`` bytes are sent."""

    def answer(to: Handler) -> None:
        asked = to.headers["Range"]
        fits = ranges and to.headers["If-Range"] in (None, *dict(tags).values())
        start = int(re.match(r"bytes=(\d+)-$", asked)[1]) if asked and fits else 0
        if start >= len(content):
            return says(416, ("Content-Range", f"bytes */{len(content)}"))(to)
        to.send_response(206 if start else 200)
        for name, value in tags:
            to.send_header(name, value)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        to.send_header("Content-Length", str(len(content) - start + lie))
        to.end_headers()
        to.wfile.write(content[start : None if part is None else start + part])
        if silent:
            to.server.over.wait(5)
        if reset:
            to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            to.connection.close()
        return None

    return answer


def says(status, *headers, body=b""):
    def answer(to: Handler) -> None:
        to.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(body)

    return answer


cut, rest, dated = sends(part=THIRD), sends(), (("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),)
later = (("Last-Modified", "Thu, 22 Oct 2015 07:28:00 GMT"),)
busy, page = says(503), says(200, ("Content-Type", "text/html"), body=PAGE)
FAULTS = {
    "the connection breaks": [cut, rest],
    "the connection is reset": [sends(part=THIRD, reset=True), rest],
    "it breaks again and again, with nothing new": [cut, sends(part=0)],
    "the server goes silent, once": [sends(part=THIRD, silent=True), rest],
    "the server goes silent, again and again": [sends(part=THIRD, silent=True), sends(part=0, silent=True)],
    "the server never answers": [lambda to: to.server.over.wait(5)],
    "more bytes are announced than the file has": [sends(lie=1000)],
    "fewer bytes are announced than the file has": [sends(lie=-1000)],
    "the server cannot resume": [cut, sends(ranges=False)],
    "the server cannot resume, and breaks again and again": [cut, sends(part=THIRD, ranges=False)],
    "the file changes, by its ETag": [cut, sends(NEW, tags=(("ETag", '"2"'),))],
    "the file changes, by its date": [sends(part=THIRD, tags=dated), sends(NEW, tags=later)],
    "nothing tells the file's version": [sends(part=THIRD, tags=()), sends(NEW, tags=())],
    "a web page instead of the file": [page],
    "a web page instead of the rest": [cut, page],
    "another kind of file": [says(200, body=b'{"error": "quota"}')],
    "404": [says(404)],
    "204, an answer without a file": [says(204)],
    "429 with Retry-After": [says(429, ("Retry-After", "7")), rest],
    "429 with a long Retry-After": [says(429, ("Retry-After", "3600"))],
    "500, once": [says(500), rest],
    "503, again and again": [busy],
    "500 in the middle, again and again": [cut, says(500)],
}


@pytest.fixture
def server(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.slept, server.asked, server.over = True, slept, [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/a.zip"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.over.set()
        server.shutdown()


def archive(url: str, folder: Path) -> Path:
    return transfer(url, folder / "a.zip", accepts=is_archive, patience=PATIENCE)


def weights(url: str, folder: Path) -> Path:
    return local_copy(url, PATIENCE)


def table() -> dict[str, list[str]]:
    """The rows of the document: by fault, what the user sees and what is there afterwards."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {fault: [sees, after] for fault, sees, after in rows[1:] if not set(fault) <= set("-")}


@pytest.mark.parametrize("fetch", [archive, weights])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(server, tmp_path, monkeypatch, caplog, fault, fetch):
    """As the document says; and afterwards, the same command gets the file from a healthy server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    caplog.set_level("INFO", "tiltbox")
    server.answers = list(FAULTS[fault])
    sees, after = table()[fault]
    if after == "whole":
        assert fetch(server.url, tmp_path).read_bytes() in (OLD, NEW)
        assert ("next attempt in" in caplog.text) == ("a line" in sees)
    else:
        message = ".*".join(map(re.escape, sees.split("`")[1].split("…")))
        with pytest.raises((DataError, CheckpointError), match=message):
            fetch(server.url, tmp_path)
        part = [path for path in tmp_path.rglob("*a.zip*") if path.is_file()]
        assert (
            sorted(path.suffix for path in part)
            == {
                "the part": [".part", ".part-version"],
                "nothing": [],
            }[after]
        )
    server.answers, before = [rest], len(server.asked)
    assert fetch(server.url, tmp_path).read_bytes() in (OLD, NEW)
    assert after != "the part" or "cannot resume" in fault or server.asked[before].startswith("bytes=")
    assert [path.suffix for path in tmp_path.rglob("*a.zip*")] == [".zip"]


def test_the_document_has_every_fault():
    assert list(table()) == list(FAULTS)


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("fetch", [archive, weights])
def test_a_break_at_each_tenth(server, tmp_path, monkeypatch, tenth, fetch):
    """What has arrived is not sent again."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = len(OLD) * tenth // 10
    server.answers = [sends(part=place), rest]
    assert fetch(server.url, tmp_path).read_bytes() == OLD
    assert server.asked == [None, f"bytes={place}-"]


def test_the_wait_that_a_server_asks_for(server, tmp_path):
    server.answers = list(FAULTS["429 with Retry-After"])
    archive(server.url, tmp_path)
    assert server.slept == [7]


FULL = """
import sys
from pathlib import Path
from tiltbox.files.transfer import transfer
from tiltbox.errors import OutputError
try:
    transfer(sys.argv[1], Path("disk/a.zip"))
except OutputError as error:
    print(error)
print(*sorted(path.name for path in Path("disk").iterdir()))
"""


@pytest.mark.parametrize(
    ("announced", "says", "left"),
    [
        (True, r"disk: needs at least 0\.2 MiB, but only 0\.1 MiB are free; free some space or", []),
        (
            False,
            r"disk: cannot write here \(No space left on device\); free some space or",
            ["part", "part-version"],
        ),
    ],
)
def test_a_full_disk(server, tmp_path, announced, says, left):
    """A file system of 128 KiB, which is noticed before if the server announces the length."""
    mount = "mount -t tmpfs -o size=128k none disk"
    (tmp_path / "disk").mkdir()
    within = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*within, mount], cwd=tmp_path).returncode:
        pytest.skip("needs permission to mount a file system")
    server.answers = [sends() if announced else unannounced]
    command = f'{mount} && exec "$0" -c "$1" "$2"'
    words = [*within, command, sys.executable, FULL, server.url]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "NO_PROXY": "*"}
    )
    message, names = done.stdout.splitlines()
    assert re.match(says, message), done
    assert names.split() == [f"a.zip.{suffix}" for suffix in left]


def unannounced(to: Handler) -> None:
    to.send_response(200)
    to.send_header("ETag", '"1"')
    to.end_headers()
    to.wfile.write(OLD)


@pytest.mark.parametrize("right", [True, False])
def test_pieces_of_different_files(server, tmp_path, right):
    """A server without If-Range in front of a file that changed: only the checksum tells."""
    server.answers = [cut, sends(NEW), sends(NEW if right else OLD)]
    checksum = "md5:" + hashlib.md5(NEW).hexdigest()
    if right:
        assert transfer(server.url, tmp_path / "a.zip", checksum=checksum).read_bytes() == NEW
    else:
        with pytest.raises(DataError, match=r"has the checksum md5:.*, not md5:"):
            transfer(server.url, tmp_path / "a.zip", checksum=checksum)
        assert list(tmp_path.iterdir()) == []
    assert server.asked == [None, f"bytes={THIRD}-", None]
