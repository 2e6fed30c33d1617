from __future__ import annotations

import errno
import gzip
import hashlib
import random
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tiltbox.errors import DataError, OutputError
from tiltbox.files import transfer as module
from tiltbox.files.transfer import Patience, announced_size, arrived_bytes, transfer

CONTENT = random.Random(0).randbytes(3_000_000)
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><body>Google Drive can't scan this file for viruses</body></html>"


class Server(ThreadingHTTPServer):
    """Serves CONTENT in the way that a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.kind, self.status = CONTENT, "application/gzip", None
        self.headers = {"ETag": '"1"'}  # of all answers
        self.honest = True  # whether If-Range is honoured
        self.redirect: str | None = None
        self.ranges = True  # whether Range is honoured
        self.announce = True  # whether Content-Length is sent
        self.wrong_start = 0  # offset of the start of a resumed answer from what was asked for
        self.limit: int | None = None  # the largest number of bytes in a resumed answer
        self.breaks: list[int] = []  # bytes after which the next answers break off
        self.requests: list[str | None] = []  # the Range header of each
        self.asked: list[dict[str, str]] = []  # all headers of each

    def handle_error(self, *_):
        """A client that refuses an answer does not wait for its end."""

    def url(self, name: str = "a.zip") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server
        asked = self.headers["Range"]
        server.requests.append(asked)
        server.asked.append(dict(self.headers))
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        if server.status:
            self.send_response(server.status)
            return self.end_headers()
        if server.honest and self.headers["If-Range"] not in (None, *server.headers.values()):
            asked = None
        start = int(re.match(r"bytes=(\d+)-$", asked)[1]) if asked and server.ranges else 0
        total = len(server.content)
        if start >= total > 0:
            super().send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start += server.wrong_start if start else 0
        end = min(total, start + server.limit) if start and server.limit else total
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{total}")
        if server.announce:
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        stop = start + server.breaks.pop(0) if server.breaks else end
        self.wfile.write(server.content[start:stop])

    def send_response(self, code, message=None):
        super().send_response(code, message)
        for name, value in self.server.headers.items():
            self.send_header(name, value)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """Record the waiting times instead of waiting."""
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    return slept


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_empty_file(server, tmp_path):
    server.content = b""
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == b""


@pytest.mark.parametrize("checksum", [None, MD5, SHA256])
@pytest.mark.parametrize("announce", [True, False])
def test_fetches(server, tmp_path, checksum, announce):
    server.announce = announce
    target = tmp_path / "new/folder/a.zip"
    assert transfer(server.url(), target, checksum=checksum) == target
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == ["a.zip"]


@pytest.mark.parametrize("checksum", [None, MD5])
def test_existing_files_are_not_downloaded_again(server, tmp_path, checksum):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    transfer(server.url(), tmp_path / "a.zip", checksum=checksum)
    assert server.requests == []


def test_two_who_want_the_same_fetch_it_once(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: transfer(server.url(), tmp_path / "a.zip"), range(4)))
    assert fetched == [tmp_path / "a.zip"] * 4 and fetched[0].read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_there_but_wrong_is_replaced(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT[:100])
    assert transfer(server.url(), tmp_path / "a.zip", checksum=MD5).read_bytes() == CONTENT


def test_resumes_a_broken_connection(server, tmp_path):
    server.breaks = [1_200_000, 700_000, 900_000]
    transfer(server.url(), tmp_path / "a.zip", checksum=MD5)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.requests[1:]]
    assert server.requests[0] is None and starts == sorted(starts) and starts[0] > 0
    assert left(tmp_path) == ["a.zip"]


def test_any_number_of_breaks_as_long_as_it_gets_on(server, tmp_path):
    server.breaks = [200_000] * 3 * module.ATTEMPTS
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == CONTENT


def test_resumes_the_part_of_an_earlier_call(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    transfer(server.url(), tmp_path / "a.zip", checksum=MD5)
    assert server.requests == ["bytes=1000-"]


def test_resumes_if_the_server_gives_a_piece_at_a_time(server, tmp_path):
    server.limit = 700_000
    (tmp_path / "a.zip.part").write_bytes(CONTENT[:1000])
    transfer(server.url(), tmp_path / "a.zip", checksum=MD5)
    assert len(server.requests) == 5


def begun(folder, content: bytes, version: str | None = '"1"') -> None:
    """The files that an earlier call left."""
    (folder / "a.zip.part").write_bytes(content)
    if version:
        (folder / "a.zip.part-version").write_text(version)


def test_starts_over_where_the_server_cannot_resume(server, tmp_path):
    server.ranges = False
    begun(tmp_path, b"x" * 1000)
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == CONTENT


def test_starts_over_where_the_server_resumes_elsewhere(server, tmp_path):
    server.wrong_start = 5
    begun(tmp_path, CONTENT[:1000])
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
@pytest.mark.parametrize("checksum", [None, MD5])
def test_part_as_long_as_the_file_or_longer(server, tmp_path, part, checksum):
    begun(tmp_path, part)
    assert transfer(server.url(), tmp_path / "a.zip", checksum=checksum).read_bytes() == CONTENT
    assert len(server.requests) == (1 if part == CONTENT else 2)
    assert left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("honest", [True, False])
def test_resumes_the_same_version_only(server, tmp_path, name, honest):
    """This also holds if the server does not know If-Range, but says what it sends."""
    server.headers, server.honest, server.breaks = {name: '"1"'}, honest, [1_000_000] + [0] * module.ATTEMPTS
    with pytest.raises(DataError, match="it resumes where it stopped"):
        transfer(server.url(), tmp_path / "a.zip")
    server.breaks, server.content, server.headers = [], CONTENT[::-1], {name: '"2"'}
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == CONTENT[::-1]
    assert server.asked[-1 if honest else -2]["If-Range"] == '"1"'
    assert left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_starts_over_where_nothing_tells_whether_the_pieces_fit(server, tmp_path, headers):
    server.headers, server.breaks = headers, [1_000_000] * module.ATTEMPTS
    with pytest.raises(DataError, match=r"a\.zip: broke off after \d+ bytes .*; it starts over$"):
        transfer(server.url(), tmp_path / "a.zip")
    server.breaks, server.content = [], CONTENT[::-1]
    assert transfer(server.url(), tmp_path / "a.zip").read_bytes() == CONTENT[::-1]
    assert set(server.requests) == {None}


def test_a_checksum_tells_whether_the_pieces_fit(server, tmp_path):
    server.headers = {"ETag": '"2"'}
    begun(tmp_path, CONTENT[:1000], '"1"')
    transfer(server.url(), tmp_path / "a.zip", checksum=MD5)
    assert server.requests == ["bytes=1000-"] and "If-Range" not in server.asked[0]
    assert left(tmp_path) == ["a.zip"]


def test_broken_for_good_keeps_the_part(server, tmp_path):
    server.breaks = [100_000] + [0] * module.ATTEMPTS
    with pytest.raises(DataError, match=r"after 100000 bytes \(the connection was closed too early\)"):
        transfer(server.url(), tmp_path / "a.zip")
    assert left(tmp_path) == ["a.zip.part", "a.zip.part-version"]
    assert transfer(server.url(), tmp_path / "a.zip", checksum=MD5).read_bytes() == CONTENT


def test_gives_up_where_it_starts_over_again_and_again(server, tmp_path):
    server.ranges = False
    server.breaks = [500_000, 900_000] * 3 * module.ATTEMPTS
    with pytest.raises(DataError, match="broke off"):
        transfer(server.url(), tmp_path / "a.zip")
    assert len(server.requests) == module.ATTEMPTS + 1


def test_wrong_checksum_keeps_nothing(server, tmp_path):
    wrong = "md5:" + "0" * 32
    with pytest.raises(DataError, match=f"has the checksum {MD5}, not {wrong}"):
        transfer(server.url(), tmp_path / "a.zip", checksum=wrong)
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
@pytest.mark.parametrize("start", [b"", b"<!-- generated -->", b"<?xml version='1.0'?>"])
def test_web_page_in_place_of_a_file(server, tmp_path, kind, start):
    server.content, server.kind = start + PAGE, kind
    with pytest.raises(DataError, match=r"is a web page, not the file \(.*Google Drive"):
        transfer(server.url(), tmp_path / "a.zip")
    assert left(tmp_path) == []


def starts_right(path) -> bool:
    return path.read_bytes().startswith(CONTENT[:9])


def test_what_is_not_accepted_is_not_kept(server, tmp_path):
    server.content, server.kind = b'{"error": "quota exceeded"}', "application/json"
    with pytest.raises(
        DataError, match=r"""is damaged or another kind of file: it starts with '{"error": "q"""
    ):
        transfer(server.url(), tmp_path / "a.zip", accepts=starts_right)
    assert left(tmp_path) == []


def test_what_is_there_but_not_accepted_is_replaced(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(b'{"error": "quota exceeded"}')
    assert transfer(server.url(), tmp_path / "a.zip", accepts=starts_right).read_bytes() == CONTENT
    transfer(server.url(), tmp_path / "a.zip", accepts=starts_right)
    assert len(server.requests) == 1


def test_an_archive_that_the_server_calls_a_compressed_answer(server, tmp_path):
    server.content, server.headers = gzip.compress(CONTENT), {"Content-Encoding": "gzip"}
    assert transfer(server.url(), tmp_path / "a.tar.gz").read_bytes() == server.content
    assert server.asked[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 416])
def test_refused(server, tmp_path, status):
    server.status = status
    with pytest.raises(DataError, match=f"the server answers {status}"):
        transfer(server.url(), tmp_path / "a.zip")
    assert len(server.requests) == 1 and left(tmp_path) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_is_tried_again(server, tmp_path, status):
    server.status = status
    with pytest.raises(DataError, match=f"the server answers {status}"):
        transfer(server.url(), tmp_path / "a.zip")
    assert len(server.requests) == module.ATTEMPTS


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("7", [7, 7, 7]),
        ("0", [0.5, 1, 2]),
        ("86400", [60, 60, 60]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [0.5, 1, 2]),
        ("Wed, 21 Oct 2065 07:28:00 GMT", [60, 60, 60]),
        ("soon", [0.5, 1, 2]),
    ],
)
def test_busy_servers_say_how_long_to_wait(server, tmp_path, pauses, asked, waited):
    server.status, server.headers = 503, {"Retry-After": asked}
    with pytest.raises(DataError, match="cannot be fetched"):
        transfer(server.url(), tmp_path / "a.zip")
    assert pauses == waited


def test_no_server(tmp_path):
    with pytest.raises(
        DataError, match=r"cannot be reached \(Connection refused\); check the address and the"
    ):
        transfer("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")


def test_no_such_host(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    reason = "the host name cannot be resolved: Name or service not known"
    with pytest.raises(DataError, match=rf"cannot be reached \({reason}\); check the address"):
        transfer("http://misspelt.example/a.zip", tmp_path / "a.zip")
    assert left(tmp_path) == []


def test_https_where_there_is_http(server, tmp_path, pauses):
    with pytest.raises(DataError, match=r"cannot be fetched \(\[SSL.*\); check the address"):
        transfer(server.url().replace("http", "https"), tmp_path / "a.zip")
    assert pauses == [], "it will not be any better later"


def test_no_proxy(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(DataError, match=r"cannot be reached \(the proxy: Connection refused\)"):
        transfer(server.url(), tmp_path / "a.zip")


def test_silence(server, tmp_path, monkeypatch, pauses):
    monkeypatch.setattr(Handler, "do_GET", lambda self: threading.Event().wait(0.5))
    with pytest.raises(DataError, match=r"cannot be reached \(no answer within 0.05 s\)"):
        transfer(server.url(), tmp_path / "a.zip", patience=Patience(attempts=3, answer=0.05))
    assert pauses == [0.5, 1]


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a.zip", "http://[::1/a.zip", "%(self)s"])
def test_redirected_to_where_nothing_can_be_had(server, tmp_path, address):
    server.redirect = address % {"self": server.url()}
    with pytest.raises(DataError, match=r"cannot be fetched \(.+\); correct the address"):
        transfer(server.url(), tmp_path / "a.zip")


@pytest.mark.parametrize("url", ["http://", "http://[::1/a.zip", "https:///a.zip"])
def test_no_address(tmp_path, url):
    with pytest.raises(DataError, match="address"):
        transfer(url, tmp_path / "a.zip")


def test_no_space(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(OutputError, match="needs at least"):
        transfer(server.url(), tmp_path / "a.zip")


class Usage:
    free = 1000


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "free some space or choose"), (errno.EIO, "choose another folder")]
)
def test_disk_that_fills_meanwhile(server, tmp_path, monkeypatch, number, remedy):
    def write(path, mode):
        raise OSError(number, errno.errorcode[number])

    monkeypatch.setattr(module, "open", write, raising=False)
    with pytest.raises(OutputError, match=rf"cannot write here \({errno.errorcode[number]}\); {remedy}"):
        transfer(server.url(), tmp_path / "a.zip")
    assert len(server.requests) == 1


@pytest.mark.parametrize("scheme", ["HTTP", "Http"])
def test_schemes_in_capitals(server, tmp_path, scheme):
    url = server.url().replace("http", scheme)
    assert transfer(url, tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("source", ["ftp://example.org/a.zip", "S3://bucket/a.zip"])
def test_schemes_of_others(tmp_path, source):
    with pytest.raises(DataError, match=r"a\.zip: cannot be fetched by (ftp|S3); give an http\(s\) address"):
        transfer(source, tmp_path / "a.zip")


@pytest.mark.parametrize("scheme", ["", "file://", "FILE://localhost"])
@pytest.mark.parametrize("name", ["a.zip", "with blank.zip"])
def test_local_file_is_used_in_place(tmp_path, scheme, name):
    path = tmp_path / name
    path.write_bytes(CONTENT)
    source = f"{scheme}{path}".replace(" ", "%20" if scheme else " ")
    assert transfer(source, tmp_path / "out/a.zip", checksum=MD5) == path
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(CONTENT[:-1], "has the checksum"), (PAGE, "is a web page"), (b"\xef\xbb\xbf<HTML>", "is a web page")],
)
def test_wrong_local_file_is_refused_and_kept(tmp_path, content, problem):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        transfer(tmp_path / "a.zip", tmp_path / "b.zip", checksum=MD5)
    assert left(tmp_path) == ["a.zip"]


def test_missing_local_file(tmp_path):
    with pytest.raises(DataError, match="file not found"):
        transfer(tmp_path / "a.zip", tmp_path / "b.zip")


def test_the_announced_size(serve, tmp_path):
    (tmp_path / "a.zip").write_bytes(bytes(1234))
    address = serve(tmp_path)
    assert announced_size(f"{address}/a.zip") == 1234
    assert announced_size(f"{address}/b.zip") == 0, "of the page that says 404"
    (tmp_path / "c.html").write_text("<!doctype html>Please sign in")
    assert announced_size(f"{address}/c.html") == 0


def test_the_size_is_unknown(server, silent, closed):
    """Which the download itself will explain, if it matters."""
    server.announce = False
    for address in (server.url(), closed, "http://", "http://nowhere.invalid"):
        assert announced_size(address) == 0
    assert announced_size(silent, Patience(connect=1, answer=0.1)) == 0


def test_what_has_arrived(server, tmp_path):
    assert arrived_bytes(tmp_path / "a.zip") == 0
    server.breaks = [1_000_000] + [0] * 5
    with pytest.raises(DataError, match="broke off after 1000000 bytes"):
        transfer(server.url(), tmp_path / "a.zip")
    assert arrived_bytes(tmp_path / "a.zip") == 1_000_000
