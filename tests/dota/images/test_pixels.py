from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image

from tiltbox.dota.images.pixels import image_size, read_image, write_png
from tiltbox.errors import DataError


@pytest.fixture
def photo() -> np.ndarray:
    """Something smooth, 40 wide and 30 high, BGR."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, (40, 30), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "tiff"])
def test_lossless_kinds(tmp_path, photo, extension):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), photo)
    assert np.array_equal(read_image(path), photo)
    assert image_size(path) == (40, 30)


def test_jpeg(tmp_path, photo):
    path = tmp_path / "a.JPG"
    cv2.imwrite(str(path), photo)
    assert np.abs(read_image(path).astype(int) - photo).mean() < 5
    assert image_size(path) == (40, 30)


def test_spaces_and_other_letters_in_the_path(tmp_path, photo):
    path = tmp_path / "Köln 東京.png"
    write_png(path, photo)
    assert np.array_equal(read_image(path), photo)


@pytest.mark.parametrize("extension", ["png", "tif", "bmp"])
def test_grey(tmp_path, photo, extension):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), photo[..., 0])
    assert np.array_equal(read_image(path), np.repeat(photo[..., :1], 3, axis=-1))


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_high_byte_of_16_bits(tmp_path, photo, extension, channels):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), photo[..., :channels].astype(np.uint16) * 256 + 255)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.array_equal(image[..., :channels], photo[..., :channels])


def test_palette(tmp_path, photo):
    palette = Image.fromarray(photo[..., ::-1]).quantize(16)
    palette.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., ::-1], np.array(palette.convert("RGB")))


def test_transparency_is_dropped(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([photo, photo[..., 0]]))
    assert np.array_equal(read_image(tmp_path / "a.png"), photo)


@pytest.mark.parametrize("extension", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_orientation_is_ignored(tmp_path, photo, extension, orientation):
    turned, plain = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(photo).save(turned, exif=exif)
    Image.fromarray(photo).save(plain)
    assert np.array_equal(read_image(turned), read_image(plain))
    assert image_size(turned) == (40, 30)


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp"])
@pytest.mark.filterwarnings("error")
def test_truncated(tmp_path, photo, extension, share, capfd):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), photo)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"a\.{extension}: is not a complete image"):
        read_image(path)
    with suppress(DataError):
        image_size(path)
    assert capfd.readouterr() == ("", ""), "nobody tells more than the error"


def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "a.jpg"), photo)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data + bytes(100))
    assert np.array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


def test_corrupt_png(tmp_path, photo, capfd):
    write_png(tmp_path / "a.png", photo)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="not a complete image"):
        read_image(tmp_path / "a.png")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("function", [read_image, image_size])
def test_no_image(tmp_path, function):
    (tmp_path / "a.png").write_text("<html>404</html>")
    for path in (tmp_path / "a.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(DataError, match=path.name):
            function(path)


@pytest.mark.parametrize(
    ("compression", "kind"), [(1, "float32"), (34676, "int16")]
)  # none, and the logarithms that OpenCV takes by default
def test_floating_point_samples(tmp_path, photo, compression, kind):
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    cv2.imwrite(str(tmp_path / "a.tif"), photo.astype(np.float32), options)
    for function in (read_image, image_size):
        with pytest.raises(DataError, match=f"has {kind} samples, not unsigned 8- or 16-bit ones"):
            function(tmp_path / "a.tif")


def test_another_kind_of_image_by_the_name_of_a_png(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(DataError, match=r"a\.png: is a GIF image, not PNG, JPEG, TIFF or BMP; convert it"):
        read_image(tmp_path / "a.png")


def announced(width: int, height: int) -> bytes:
    """A PNG that gives its size but has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I4s", len(c), k) + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [20_000, 40_000])  # 4e8 pixels are too many for Pillow, 1.6e9 for OpenCV
def test_no_number_of_pixels_is_too_large(tmp_path, side):
    (tmp_path / "a.png").write_bytes(announced(side, side))
    assert image_size(tmp_path / "a.png") == (side, side)
    with pytest.raises(DataError, match="is not a complete image"):
        read_image(tmp_path / "a.png")


def test_sides_beyond_those_that_opencv_reads(tmp_path):
    header = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**20 + 1, 1, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(header)
    with pytest.raises(DataError, match=r"a\.bmp: is larger than OpenCV can read \(.*WIDTH.*\); cut it"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (64, 33)])
def test_written_png_is_read_by_others(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), image)
    with Image.open(tmp_path / "a.png") as other:
        assert other.mode == "RGB"
        assert np.array_equal(np.array(other)[..., ::-1], image)


def test_part_of_an_image_can_be_written(tmp_path, photo):
    write_png(tmp_path / "a.png", photo[3:20, 5:30])
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png")), photo[3:20, 5:30])
