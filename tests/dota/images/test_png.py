from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltbox.dota.images import png
from tiltbox.dota.images.pixels import read_image, write_png

EXTRAS = {  # what libpng warns about
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


def test_large_images_are_read_silently(tmp_path, capfd, loud_opencv):
    noise = np.random.default_rng(0).integers(0, 256, (1700, 1700, 3), dtype=np.uint8)  # 8.7 MB
    write_png(tmp_path / "a.png", noise)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), noise)
    assert capfd.readouterr() == ("", "")


# large images of 8-bit RGB -----------------------------------------------------------------------------


@pytest.fixture
def any_size(monkeypatch):
    """Use the compiled code for small images, too."""
    monkeypatch.setattr(png, "LARGE", 1)


def filtered(image: np.ndarray, filters: list[int]) -> bytes:
    """The rows of an RGB image by the specification of PNG, for any choice of filters."""
    rows, above = [], np.zeros_like(image[0], dtype=int)
    for line, kind in zip(image.astype(int), filters, strict=True):
        left, corner = (np.vstack([np.zeros((1, 3), int), part[:-1]]) for part in (line, above))
        estimate = left + above - corner
        far = np.abs(estimate - np.stack([left, above, corner]))
        paeth = np.take_along_axis(np.stack([left, above, corner]), far.argmin(axis=0)[None], axis=0)[0]
        guess = [0, left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((line - guess) % 256).astype(np.uint8).tobytes())
        above = line
    return b"".join(rows)


def packed(header: tuple, pixels: bytes, size: int = 10**9, extra: tuple = ()) -> bytes:
    """A file with its pixels spread over chunks of some size."""
    pieces = [pixels[i : i + size] for i in range(0, len(pixels), size)]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *header)), *extra, *((b"IDAT", piece) for piece in pieces)]
    return png.SIGNATURE + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 9))
def test_any_filters(filters, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (len(filters), width, 3), dtype=np.uint8)
    image //= np.uint8(seed % 3 * 40 + 1)  # guesses rarely tie if values are spread out
    data = packed((width, len(filters), 8, 2, 0, 0, 0), zlib.compress(filtered(image, filters)), 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "LARGE", 1)
        assert np.array_equal(png.read_large_rgb(data), image[..., ::-1])
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), image[..., ::-1])


@pytest.mark.parametrize("piece", [1, 5, 1000])
@pytest.mark.parametrize("height", [1, 3000])
def test_pieces_of_any_size(monkeypatch, any_size, piece, height):
    """Deflated and inflated rows are cut anywhere; flat colours inflate to a thousand times as much."""
    monkeypatch.setattr(png, "PIECE", piece)
    image = np.full((height, 40, 3), 7, np.uint8)
    middle = slice(height // 3, height * 2 // 3)
    image[middle] = np.random.default_rng(0).integers(0, 256, image[middle].shape)
    data = packed((40, height, 8, 2, 0, 0, 0), zlib.compress(filtered(image, [4] * height)))
    assert np.array_equal(png.read_large_rgb(data), image[..., ::-1])


def test_suggested_palettes_and_notes_do_not_matter(any_size, image):
    content = zlib.compress(filtered(image, [1] * 9))
    for extra in [(b"PLTE", bytes(6))], [(b"tRNS", bytes(6))], [(b"tEXt", b"a\0b")]:
        data = packed((7, 9, 8, 2, 0, 0, 0), content, extra=extra)
        assert np.array_equal(png.read_large_rgb(data), image[..., ::-1])


def test_small_images_are_left_to_opencv(image):
    assert png.read_large_rgb(packed((7, 9, 8, 2, 0, 0, 0), zlib.compress(filtered(image, [0] * 9)))) is None


@pytest.mark.parametrize(
    "header",
    [
        (7, 9, 8, 6, 0, 0, 0),  # transparency
        (7, 9, 16, 2, 0, 0, 0),
        (7, 9, 8, 2, 0, 0, 1),  # interlaced
        (7, 9, 8, 0, 0, 0, 0),  # grey
        (7, 8, 8, 2, 0, 0, 0),  # fewer rows than there are
        (7, 10, 8, 2, 0, 0, 0),  # more
        (0, 9, 8, 2, 0, 0, 0),
        (2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0),
    ],
)
def test_what_is_left_to_opencv(any_size, image, header):
    assert png.read_large_rgb(packed(header, zlib.compress(filtered(image, [2] * 9)))) is None


@pytest.mark.parametrize("cut", [slice(0), slice(1, None), slice(-1), slice(50)])
def test_pixels_that_cannot_be_inflated(any_size, image, cut):
    pixels = zlib.compress(filtered(image, [3] * 9))[cut]
    assert png.read_large_rgb(packed((7, 9, 8, 2, 0, 0, 0), pixels)) is None


def test_an_unknown_filter(any_size, image):
    rows = bytearray(filtered(image, [0] * 9))
    rows[0] = 5
    assert png.read_large_rgb(packed((7, 9, 8, 2, 0, 0, 0), zlib.compress(rows))) is None


def test_large_images_are_read_so(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(png.read_large_rgb((tmp_path / "a.png").read_bytes()), image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
