"""TIFF files that no available library writes, built from the specification (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile

from tiltbox.dota.images import tiff
from tiltbox.dota.images.pixels import image_size, read_image
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
    behind = start + sum(map(len, data))  # where values are that do not fit into their entry
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


def test_values_beyond_the_end_are_missing():
    data = tiff_file(PIXELS)
    bits = tiff.read_tags(data).places[tiff.BITS].start
    astray = data.replace(struct.pack("<I", bits), struct.pack("<I", len(data)))
    assert tiff.BITS not in tiff.read_tags(astray).places
    assert tiff.problem(astray).startswith("has uint1 samples in 3 bands")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_orientation_is_ignored(tmp_path, form, orientation, dtype):
    pixels = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, t274=orientation, **form))
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., ::-1], PIXELS)
    assert image_size(tmp_path / "a.tif") == (10, 6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channels(tmp_path, form, channels, planar):
    pixels = np.concatenate([PIXELS, PIXELS[..., :2]], axis=2)[..., :channels]
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, planar=planar, **form))
    expected = PIXELS if channels > 3 else np.repeat(PIXELS[..., :1], 3, axis=2)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., ::-1], expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "kind", "channels", "planar", "problem"),
    [
        (np.int32, 2, 1, False, "has int32 samples, not unsigned 8- or 16-bit ones"),
        (np.uint32, 1, 1, False, "has uint32 samples"),
        (np.int8, 2, 3, False, "has int8 samples"),
        (np.float32, 3, 3, False, "has float32 samples"),
        (np.float64, 3, 5, True, "has float64 samples"),
    ],
)
def test_what_cannot_be_read(tmp_path, form, dtype, kind, channels, planar, problem):
    pixels = np.zeros((6, 10, channels), dtype)
    (tmp_path / "a.tif").write_bytes(tiff_file(pixels, kind=kind, planar=planar, **form))
    with pytest.raises(DataError, match=rf"a\.tif: {problem}.*; convert it"):
        read_image(tmp_path / "a.tif")


LARGE = np.random.default_rng(1).integers(0, 256, (48, 80, 6), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("meaning", ["minisblack", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("bands", "extra"),
    [
        (3, None),
        (4, "unspecified"),
        (4, "unassalpha"),
        (4, "assocalpha"),
        (6, "unspecified"),
    ],
)
@pytest.mark.parametrize(
    "way",
    [
        {},
        {"tile": (16, 32)},
        {"bigtiff": True, "byteorder": ">"},
        {"compression": "lzw", "predictor": True},
        {"compression": "deflate", "tile": (16, 16)},
        {"compression": "zstd"},
        {"compression": "packbits", "rowsperstrip": 5},
    ],
    ids=lambda way: "-".join(map(str, way.values())) or "plain",
)
def test_the_first_three_bands_as_they_are_stored(tmp_path, layout, meaning, dtype, bands, extra, way):
    """GIS tools write such files, whatever they call the bands and whatever the fourth one is taken for."""
    pixels = LARGE[..., :bands].astype(dtype) * (257 if dtype == np.uint16 else 1)
    stored = pixels if layout == "contig" else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    extras = {"extrasamples": [extra] * (bands - 3)} if extra and meaning == "rgb" else {}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=meaning, planarconfig=layout, **extras, **way)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., ::-1], LARGE[..., :3])
    assert image_size(tmp_path / "a.tif") == (80, 48)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("meaning", ["minisblack", "miniswhite"])
def test_one_band_is_grey(tmp_path, dtype, meaning):
    grey = LARGE[..., 0].astype(dtype) * (257 if dtype == np.uint16 else 1)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric=meaning)
    expected = 255 - LARGE[..., :1] if meaning == "miniswhite" else LARGE[..., :1]
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.repeat(expected, 3, axis=2))


@pytest.mark.parametrize("meaning", ["cielab", "separated", "cfa"])
def test_colours_that_are_not_rgb(tmp_path, meaning):
    pixels = LARGE[..., 0] if meaning == "cfa" else LARGE[..., : 4 if meaning == "separated" else 3]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=meaning)
    with pytest.raises(DataError, match=r"a\.tif: has .*, not grey values or RGB; convert it"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_many_bands_cut_off(tmp_path, share, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LARGE, photometric="minisblack", planarconfig="contig", compression=compression)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"a\.tif: is no"):
        read_image(path)
