"""Whether a disk has room for what is about to be written.

Estimates are lower bounds: what would fit is never refused. A disk that fills up all the same ends the work
with the error of :func:`tiltbox.files.atomic.cannot_write`, and nothing half-written gets its final name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tiltbox.errors import OutputError

REMEDY = "free some space or choose another folder with --out"
# Of the bytes of a photograph, what its patches take for certain. For six DOTA images, which have 0.99 to
# 1.81 bytes a pixel, they take 1.13 to 3.42 times as much. Drawings and black images may shrink by any
# factor.
_SURE_SHARE, _OF_PHOTOGRAPHS = 0.5, 0.5  # bytes a pixel
_PNG_START = b"\x89PNG\r\n\x1a\n"


def require_space(folder: Path, needed: int, remedy: str = REMEDY) -> None:
    """Raise OutputError unless the file system of ``folder`` has ``needed`` bytes free."""
    folder = _existing(folder)
    free = shutil.disk_usage(folder).free
    if free < needed:
        problem = f"needs at least {_in_words(needed)}, but only {_in_words(free)} are free"
        raise OutputError(folder, problem, remedy)


def require_space_for_all(needs: Iterable[tuple[Path, int]]) -> None:
    """The same for several folders and what is needed in each, which may be on the same file system."""
    sums: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        device = _device(_existing(folder))
        first, before = sums.get(device, (folder, 0))
        sums[device] = first, before + needed
    for folder, needed in sums.values():
        require_space(folder, needed)


def _device(folder: Path) -> int:
    return folder.stat().st_dev


def _existing(folder: Path) -> Path:
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    return folder


def bytes_unpacked(archives: Iterable[Path]) -> int:
    """What archives take at least when unpacked: images and compressed labels do not get smaller."""
    return sum(path.stat().st_size for path in archives)


def bytes_of_patches(images: Iterable[tuple[Path, int]], rates: int) -> int:
    """What the patches of images, given with their numbers of pixels, take at least: each rate has it all."""
    sizes = ((_compressed_bytes(path), pixels) for path, pixels in images)
    return int(rates * _SURE_SHARE * sum(size for size, pixels in sizes if size >= _OF_PHOTOGRAPHS * pixels))


def bytes_of_training(weights: int, checkpoints: int, *, averaged: bool) -> int:
    """What a training that begins takes at least: the checkpoints that it keeps, and its result.

    Args:
        weights: Bytes of the weights.
        checkpoints: How many are there at the same time.
        averaged: Whether a checkpoint has averaged weights besides the current ones.
    """
    state = 1  # of the optimiser: one value for each weight with Muon, two with AdamW
    return weights * (checkpoints * (1 + averaged + state) + 1)


def _compressed_bytes(image: Path) -> int:
    """The size of an image file whose pixels take no less as PNG; 0 of kinds that may shrink."""
    with image.open("rb") as file:
        start = file.read(26)
    jpeg = start.startswith(b"\xff\xd8")
    rgb = start.startswith(_PNG_START) and start[24] <= 8 and start[25] in (0, 2, 3)  # not 16 bits, no alpha
    return image.stat().st_size if jpeg or rgb else 0


def _in_words(size: int) -> str:
    """
    >>> _in_words(20 * 2**30), _in_words(300_000), _in_words(0)
    ('20.0 GiB', '0.3 MiB', '0.0 MiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
