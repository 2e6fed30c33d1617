"""PNG files as the chunks that they are made of, to which OpenCV gives no access."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 2**20  # bytes of pixels in a chunk; of chunks from 8 MB on libpng warns

_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, kind of colour, compression, filter, interlacing
_RGB = 2


def pack_rgb(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG file of 8-bit RGB, given its filtered rows as deflated."""
    chunks = [_chunk(b"IHDR", _HEADER.pack(width, height, 8, _RGB, 0, 0, 0))]
    chunks += [_chunk(b"IDAT", pixels[i : i + LARGEST]) for i in range(0, len(pixels), LARGEST)]
    return b"".join([SIGNATURE, *chunks, _chunk(b"IEND", b"")])


def without_extras(data: bytes) -> bytes | None:
    """The PNG file with nothing but what makes its pixels; None if it is cut or a checksum is not right.

    libpng prints to stderr, past Python and without the name of the file, what is wrong with a file and also
    what is only odd about its colour profile or notes. So it gets to see neither.
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
        if struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(view[start + 4 : end - 4]):
            raise ValueError("it has another checksum")
        if kind[:1].isupper():  # by which chunks say that they are critical
            yield view[start:end]
        start = end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
