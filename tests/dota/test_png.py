from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from tiltbox.dota import png
from tiltbox.dota.images import read_image, write_png

EXTRAS = {  # what libpng warns of
    b"iCCP": b"sRGB\0\0" + zlib.compress(bytes(200)),
    b"gAMA": bytes(4),
    b"cHRM": bytes(32),
}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, start = [], 8
    while start < len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        found.append((kind, data[start + 8 : start + 8 + length]))
        start += 12 + length
    return found


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("data", [b"", png.SIGNATURE, png.SIGNATURE + bytes(3), png.SIGNATURE + b"\xff" * 99])
def test_nothing_in_it(data):
    assert png.without_extras(data) is None


def test_what_makes_the_pixels_stays(tmp_path, image):
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    assert png.without_extras(data) == data
    assert png.without_extras(data + b"more") == data


@pytest.mark.parametrize("kind", EXTRAS)
def test_what_is_only_odd_is_not_told(tmp_path, image, kind, capfd):
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(kind, EXTRAS[kind]) + data[33:])  # behind the header
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert capfd.readouterr() == ("", "")


def test_any_bit_counts(tmp_path, image):
    write_png(tmp_path / "a.png", image)
    data = (tmp_path / "a.png").read_bytes()
    for place in range(8, len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x10
        assert png.without_extras(bytes(spoilt)) is None, place


@pytest.mark.parametrize("largest", [1, 100, 2**20])
def test_pixels_in_chunks_of_bounded_size(tmp_path, image, monkeypatch, largest):
    monkeypatch.setattr(png, "LARGEST", largest)
    write_png(tmp_path / "a.png", image)
    sizes = [len(content) for kind, content in chunks((tmp_path / "a.png").read_bytes()) if kind == b"IDAT"]
    assert max(sizes) <= largest and sum(sizes) > 200
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), image)


@pytest.fixture
def loud_opencv():
    before = cv2.getLogLevel()
    cv2.setLogLevel(3)
    yield
    cv2.setLogLevel(before)


def test_large_images_are_read_without_a_word(tmp_path, capfd, loud_opencv):
    noise = np.random.default_rng(0).integers(0, 256, (1700, 1700, 3), dtype=np.uint8)  # 8.7 MB
    write_png(tmp_path / "a.png", noise)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), noise)
    assert capfd.readouterr() == ("", "")
