"""Which files of a folder are images, by their names: nothing here reads one, or needs OpenCV."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image

from tiltbox.dota.reading import list_files

log = logging.getLogger("tiltbox")

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

# Of images that Pillow does not know, in addition to those that it does.
OTHER_EXTENSIONS = (
    ".avif",
    ".dng",
    ".ecw",
    ".heic",
    ".heif",
    ".img",
    ".jxl",
    ".nitf",
    ".ntf",
    ".sid",
    ".vrt",
)


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, sorted by name; other files and hidden ones are skipped.

    Raises:
        DataError: The folder does not exist, or two images differ only in their extension.
    """
    return list_files(folder, EXTENSIONS, "image")


def warn_of_passed_over(folder: Path) -> None:
    """Warn about images that :func:`list_images` leaves out: those of other kinds or in subfolders."""
    names = passed_over(folder)
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        only = "only PNG, JPEG, TIFF and BMP files directly in that folder are read"
        log.warning("%s: skipped %s: %s", folder, listed, only)


def passed_over(folder: Path) -> list[str]:
    """Names, relative to the folder, of images of other kinds and of all images in subfolders."""
    found = (path.relative_to(folder) for path in sorted(Path(folder).rglob("*")) if _is_image(path))
    return [
        path.as_posix()
        for path in found
        if not any(part.startswith(".") for part in path.parts)
        and (len(path.parts) > 1 or path.suffix.lower() not in EXTENSIONS)
    ]


def _is_image(path: Path) -> bool:
    """Whether the name is that of an image."""
    known = path.suffix.lower() in (*EXTENSIONS, *OTHER_EXTENSIONS, *Image.registered_extensions())
    return known and path.is_file()
