"""PNG files as chunks, to which OpenCV gives no access."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 2**20  # bytes of pixels in a chunk; libpng warns about chunks of 8 MB or more

LARGE = 2**20  # pixels of an image for which loading compiled code is worthwhile
PIECE = 2**18  # bytes of deflated pixels at a time
_MOST_INFLATED = 1032  # bytes that one deflated byte can become

_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, kind of colour, compression, filter, interlacing
_RGB = 2
_PLAIN = (8, _RGB, 0, 0, 0)  # what a header says after width and height


def pack_rgb(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG file of 8-bit RGB, given its filtered rows as deflated."""
    chunks = [_chunk(b"IHDR", _HEADER.pack(width, height, *_PLAIN))]
    chunks += [_chunk(b"IDAT", pixels[i : i + LARGEST]) for i in range(0, len(pixels), LARGEST)]
    return b"".join([SIGNATURE, *chunks, _chunk(b"IEND", b"")])


def read_large_rgb(data: bytes) -> np.ndarray | None:
    """The pixels of a large PNG file of 8-bit RGB as BGR, (h, w, 3), in half the time that OpenCV takes.

    None for a small or damaged file and for any other kind (transparency, though, is accepted and dropped).
    """
    try:
        chunks = ((bytes(chunk[4:8]), chunk[8:-4]) for chunk in _critical_chunks(data))
        _, header = next(chunks)
        width, height, *kind = _HEADER.unpack(header)
        if tuple(kind) != _PLAIN or width * height < LARGE:
            return None
        names, contents = zip(*chunks, strict=True)
        if names[0] == b"PLTE":  # suggested colours for a display with few
            names, contents = names[1:], contents[1:]
        if set(names[:-1]) != {b"IDAT"}:
            return None
        return _unfiltered(b"".join(contents), width, height)
    except (struct.error, ValueError, isal_zlib.error):  # type: ignore[misc]  # isal calls it an instance
        return None


def _unfiltered(deflated: bytes, width: int, height: int) -> np.ndarray | None:
    from tiltbox.dota.images.png_rows import undo_filters

    row = 1 + 3 * width
    if height * row > _MOST_INFLATED * len(deflated):
        return None
    image, above = np.empty((height, width, 3), np.uint8), np.zeros((width, 3), np.uint8)
    done, rest = 0, b""
    for piece in _inflated(deflated):
        rest += piece
        count = len(rest) // row
        rows = np.frombuffer(rest, np.uint8, count * row).reshape(count, row)
        if done + count > height or not undo_filters(rows, above, image[done : done + count]):
            return None
        done, rest = done + count, rest[count * row :]
        above = image[done - 1] if done else above
    return image if done == height and not rest else None


def _inflated(deflated: bytes) -> Iterator[bytes]:
    """The inflated data in pieces; ValueError if it ends too early."""
    inflater, view = isal_zlib.decompressobj(), memoryview(deflated)
    for start in range(0, len(view), PIECE):
        left: bytes | memoryview = view[start : start + PIECE]
        while left:
            yield inflater.decompress(left, 16 * PIECE)
            left = inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise ValueError("it ends too early")


def without_extras(data: bytes) -> bytes | None:
    """The PNG file with only the chunks that make its pixels; None if it is cut off or a checksum is wrong.

    libpng prints to stderr, bypassing Python and without the file name, what is wrong with a file and also
    what is merely odd about its colour profile or notes. So it never sees either.
    """
    try:
        return b"".join([SIGNATURE, *_critical_chunks(data)])
    except (struct.error, ValueError):
        return None


def _critical_chunks(data: bytes) -> Iterator[memoryview]:
    view, start, kind = memoryview(data), len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length  # length, kind, content, checksum
        if struct.unpack_from(">I", data, end - 4)[0] != isal_zlib.crc32(view[start + 4 : end - 4]):
            raise ValueError("its checksum does not match")
        if kind[:1].isupper():  # this marks a critical chunk
            yield view[start:end]
        start = end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", isal_zlib.crc32(kind + content))
    )
