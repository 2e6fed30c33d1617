"""TIFF files, as cameras and GIS tools write them.

OpenCV silently misreads many of them: bands that are not called RGB become grey, a fourth one (near infrared,
say) is taken for transparency and multiplied in, some tiles and some compressions give nothing or wrong
pixels. So tifffile reads them, except for palettes, JPEG's own colours and samples of odd depth, which OpenCV
converts to colours and tifffile does not.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from mmap import mmap
from typing import Literal

import numpy as np

WIDTH, HEIGHT, BITS, COLOURS, ORIENTATION, CHANNELS, KIND = 256, 257, 258, 262, 274, 277, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6  # meanings of the bands
_PLAIN = ("uint8", "uint16")
_OTHERS = {4: "a mask", 5: "CMYK colours", 8: "CIELab colours", 9: "ICCLab colours", 10: "ITULab colours"}
_OTHERS |= {32803: "a colour filter array", 34892: "linear raw samples"}
_AS_STORED = 1  # an orientation
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex int", 6: "complex"}
_READABLE = tuple(f"uint{bits}" for bits in (1, 4, 8, 10, 12, 14, 16))  # by OpenCV, as 8- or 16-bit ones
_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of a value of the types that hold whole numbers


@dataclass(frozen=True)
class Tags:
    """The tags of the first page: for each, where its first value begins and ends.

    Attributes:
        data: The file.
        order: Of the bytes of a number.
        places: The tags that are whole numbers.
    """

    data: bytes | mmap
    order: Literal["little", "big"]
    places: dict[int, slice]

    def value(self, tag: int, default: int = 1) -> int:
        place = self.places.get(tag)
        return int.from_bytes(self.data[place], self.order) if place else default

    def samples(self) -> str:
        """The type of the samples as NumPy calls it, of the first channel."""
        return f"{_KINDS.get(self.value(KIND), 'unknown ')}{self.value(BITS)}"


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def as_stored(data: bytes) -> bytes:
    """The TIFF file with its orientation, if it has one, set to that of the pixels as they are stored.

    OpenCV always applies the orientation of a TIFF file, and puts the tiles of tiled ones in the wrong
    places.
    """
    tags = read_tags(data)
    if tags.value(ORIENTATION) == _AS_STORED:
        return data
    place = tags.places[ORIENTATION]
    upright = _AS_STORED.to_bytes(place.stop - place.start, tags.order)
    return data[: place.start] + upright + data[place.stop :]


def problem(data: bytes | mmap) -> str | None:
    """Why a TIFF file does not have grey values or colours of 8 or 16 bits, judging by its tags."""
    tags = read_tags(data)
    samples, colours = tags.samples(), tags.value(COLOURS)
    if samples not in _READABLE:
        return f"has {samples} samples, not unsigned 8- or 16-bit ones"
    if colours in _OTHERS:
        return f"has {_OTHERS[colours]}, not grey values or RGB"
    if tags.value(CHANNELS) > 1 and samples not in _PLAIN:
        return f"has {samples} samples in {tags.value(CHANNELS)} bands, not 8- or 16-bit ones"
    if (colours == _PALETTE and tags.value(CHANNELS) > 1) or (
        colours == _YCBCR and tags.value(CHANNELS) != 3
    ):
        return f"has {tags.value(CHANNELS)} bands, which does not match its kind of colours"
    return None


def read_bands(data: bytes) -> np.ndarray | None:
    """Grey or RGB of shape (h, w, 3) as it is stored, 8 or 16 bits; None for forms that are left to OpenCV.

    Of more than three bands the first three are taken, of two, which are grey and a mask, the first.

    Raises:
        ValueError: The file is cut off or damaged, or compressed in an unknown way.
    """
    tags = read_tags(data)
    if tags.samples() not in _PLAIN or tags.value(COLOURS) not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        return None
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
            if max(ends, default=0) > len(data):
                raise ValueError("it ends early")
            bands = page.asarray(maxworkers=1)  # stages have a process for each core
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(str(error)) from error
    if page.axes.startswith("S"):  # band by band
        bands = np.moveaxis(bands, 0, -1)
    bands = bands.reshape(*page.shape[page.axes.index("Y") : page.axes.index("X") + 1], -1)
    if bands.shape[2] > 2:
        return bands[..., :3]
    grey = bands[..., :1] if tags.value(COLOURS) != _WHITE_IS_ZERO else ~bands[..., :1]
    return np.repeat(grey, 3, axis=2)


def size(data: bytes | mmap) -> tuple[int, int] | None:
    """Width and height in pixels, None where the tags do not say."""
    tags = read_tags(data)
    found = tags.value(WIDTH, 0), tags.value(HEIGHT, 0)
    return found if all(found) else None


def read_tags(data: bytes | mmap) -> Tags:
    """The tags of a TIFF file; none if it is cut off."""
    little, big_file = data[:2] == b"II", b"+" in data[2:4]
    sign = "<" if little else ">"
    try:
        places = _places(data, sign, *(("Q", "Q", 8) if big_file else ("H", "I", 4)))
    except (struct.error, OverflowError):
        places = {}
    return Tags(data, "little" if little else "big", places)


def _places(data: bytes | mmap, sign: str, count: str, word: str, first: int) -> dict[int, slice]:
    """``count`` and ``word``: how the number of tags and all other numbers are stored."""
    entry = struct.Struct(f"{sign}HH{word}")  # tag, type, number of values; then the values or their offset
    step, room = entry.size + struct.calcsize(f"{sign}{word}"), struct.calcsize(f"{sign}{word}")
    (directory,) = struct.unpack_from(f"{sign}{word}", data, first)
    (number,) = struct.unpack_from(f"{sign}{count}", data, directory)
    places, start = {}, directory + struct.calcsize(f"{sign}{count}")
    for at in range(start, start + number * step, step):
        tag, kind, values = entry.unpack_from(data, at)
        if size := _SIZES.get(kind):
            place = at + entry.size
            if size * values > room:
                (place,) = struct.unpack_from(f"{sign}{word}", data, place)
            if place + size <= len(data):
                places[tag] = slice(place, place + size)
    return places
