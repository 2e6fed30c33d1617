"""TIFF files that no library at hand writes, put together from the specification (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tiltbox.dota import tiff
from tiltbox.dota.images import image_size, read_image
from tiltbox.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)  # RGB


def tiff_file(
    pixels: np.ndarray,
    *,
    kind: int = 1,
    order: str = "<",
    big: bool = False,
    planar: bool = False,
    **tags: int,
) -> bytes:
    """An uncompressed TIFF file of one strip (or one for each channel); ``tags`` as ``t274=6``."""
    height, width, channels = pixels.shape
    word, count, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    strips = [pixels[..., i] for i in range(channels)] if planar else [pixels]
    data = [strip.astype(strip.dtype.newbyteorder(order)).tobytes() for strip in strips]
    start = 16 if big else 8
    offsets = [start + sum(map(len, data[:i])) for i in range(len(data))]
    bits = 8 * pixels.dtype.itemsize
    values: dict[int, list[int]] = {256: [width], 257: [height], 258: [bits] * channels, 259: [1]}
    values |= {262: [2 if channels > 2 else 1], 273: offsets, 277: [channels], 278: [height]}
    values |= {279: [len(strip) for strip in data], 284: [1 + planar], 339: [kind] * channels}
    if channels in (2, 4, 5):
        values[338] = [0] * (channels - 3 if channels > 3 else 1)
    values |= {int(name[1:]): [value] for name, value in tags.items()}
    behind = start + sum(map(len, data))  # where values lie that have no room in their entry
    extra, entries = b"", []
    for tag, numbers in sorted(values.items()):
        letter, code = ("I", 4) if tag in (273, 279) else ("H", 3)
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > room:
            place = struct.pack(f"{order}{word}", behind + len(extra))
            extra += packed
            packed = place
        head = struct.pack(f"{order}HH{word}", tag, code, len(numbers))
        entries.append(head + packed.ljust(room, b"\0"))
    directory = struct.pack(f"{order}{count}", len(entries)) + b"".join(entries) + bytes(room)
    first = struct.pack(f"{order}{word}", behind + len(extra))
    magic = struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    return (b"II" if order == "<" else b"MM") + magic + first + b"".join(data) + extra + directory


FORMS = [{"order": order, "big": big} for order in "<>" for big in (False, True)]


@pytest.mark.parametrize("data", [b"", b"II", b"II*\0", b"II*\0\x08\0\0\0", b"MM\0+" + b"\xff" * 40])
def test_nothing_in_it(data):
    assert tiff.read_tags(data).places == {}
    assert tiff.as_stored(data) == data


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_cut_anywhere(form, cut):
    data = tiff_file(PIXELS, t274=6, **form)[:-cut]
    assert tiff.as_stored(data) in (data, tiff_file(PIXELS, t274=1, **form)[:-cut])


def test_values_beyond_the_end_are_none():
    data = tiff_file(PIXELS)
    bits = tiff.read_tags(data).places[tiff.BITS].start
    astray = data.replace(struct.pack("<I", bits), struct.pack("<I", len(data)))
    assert tiff.BITS not in tiff.read_tags(astray).places
    assert tiff.problem(astray) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation_is_ignored(tmp_path, form, orientation, dtype):
    pixels = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, t274=orientation, **form))
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., ::-1], PIXELS)
    assert image_size(tmp_path / "a.tif") == (10, 6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels(tmp_path, form, channels):
    pixels = np.concatenate([PIXELS, PIXELS[..., :1]], axis=2)[..., :channels]
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, **form))
    expected = PIXELS if channels == 4 else np.repeat(PIXELS[..., :1], 3, axis=2)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., ::-1], expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "kind", "channels", "planar", "problem"),
    [
        (np.uint8, 1, 5, False, "has 5 channels, not 1, 3 or 4"),
        (np.uint8, 1, 5, True, "has 5 channels"),
        (np.int32, 2, 1, False, "has int32 samples, not unsigned 8- or 16-bit ones"),
        (np.uint32, 1, 1, False, "has uint32 samples"),
        (np.int8, 2, 3, False, "has int8 samples"),
        (np.float32, 3, 3, False, "has float32 samples"),
        (np.uint16, 1, 3, True, r"has 16-bit samples channel by channel \(planar\)"),
    ],
)
def test_what_cannot_be_read(tmp_path, form, dtype, kind, channels, planar, problem):
    pixels = np.zeros((6, 10, channels), dtype)
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, kind=kind, planar=planar, **form))
    with pytest.raises(DataError, match=rf"a\.tif: {problem}.*; convert it"):
        read_image(tmp_path / "a.tif")
