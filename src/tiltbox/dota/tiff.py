"""The tags of a TIFF file, some of which OpenCV misreads or refuses without saying so."""

from __future__ import annotations

import struct
from dataclasses import dataclass

WIDTH, HEIGHT, BITS, ORIENTATION, CHANNELS, LAYOUT, KIND = 256, 257, 258, 274, 277, 284, 339
_AS_STORED, _CHANNEL_BY_CHANNEL = 1, 2  # an orientation and a layout
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex int", 6: "complex"}
_READABLE = tuple(f"uint{bits}" for bits in (1, 4, 8, 10, 12, 14, 16))  # by OpenCV, as 8- or 16-bit ones
_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of a value of the types that hold whole numbers


@dataclass(frozen=True)
class Tags:
    """The tags of the first page: for each, where its first value begins and ends.

    Attributes:
        data: The file.
        order: ``"little"`` or ``"big"``.
        places: Of the tags that are whole numbers.
    """

    data: bytes
    order: str
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

    OpenCV always turns what it reads from a TIFF file, and of tiled ones puts the parts in the wrong places.
    """
    tags = read_tags(data)
    if tags.value(ORIENTATION) == _AS_STORED:
        return data
    place = tags.places[ORIENTATION]
    upright = _AS_STORED.to_bytes(place.stop - place.start, tags.order)
    return data[: place.start] + upright + data[place.stop :]


def problem(data: bytes) -> str | None:
    """What OpenCV cannot read, or reads wrongly, in a TIFF file by its tags."""
    tags = read_tags(data)
    channels, samples = tags.value(CHANNELS), tags.samples()
    if channels > 4:
        return f"has {channels} channels, not 1, 3 or 4"
    if samples not in _READABLE:
        return f"has {samples} samples, not unsigned 8- or 16-bit ones"
    if samples == "uint16" and channels > 1 and tags.value(LAYOUT) == _CHANNEL_BY_CHANNEL:
        return "has 16-bit samples channel by channel (planar), not pixel by pixel"
    return None


def read_tags(data: bytes) -> Tags:
    """The tags of a TIFF file, none where it is cut."""
    little, big_file = data[:2] == b"II", b"+" in data[2:4]
    sign = "<" if little else ">"
    try:
        places = _places(data, sign, *(("Q", "Q", 8) if big_file else ("H", "I", 4)))
    except (struct.error, OverflowError):
        places = {}
    return Tags(data, "little" if little else "big", places)


def _places(data: bytes, sign: str, count: str, word: str, first: int) -> dict[int, slice]:
    """``count`` and ``word``: how the number of tags and all other numbers are stored."""
    entry = struct.Struct(f"{sign}HH{word}")  # tag, type, how many values; then they or where they are
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
