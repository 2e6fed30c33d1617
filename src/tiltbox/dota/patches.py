"""The names of patches, which say where a patch was cut. Only this module builds and parses them.

Two tools give the second part of the name two meanings:

* ``{image}__{size}__{x}___{y}`` (mmrotate, and this project): a window of ``size`` pixels of the original
  image whose top left corner is (x, y). Different scales have different sizes and nothing is resized, so a
  point of the patch is at ``(x, y) + point`` in the image.
* ``{image}__{rate}__{x}___{y}`` (the DOTA devkit): the image was resized by ``rate`` first, and x and y count
  pixels of the resized image, so the point is at ``((x, y) + point) / rate``.

A number of at least 32 is a size and a smaller one a rate: no detector takes a window that small, and
nobody enlarges an image 32 times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tiltbox.errors import DataError

MIN_SIZE = 32  # pixels; the coarsest stride of the detectors

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_NAME = re.compile(
    rf"(?P<image>.+)__(?P<scale>{_NUMBER})__(?P<x>[0-9]{{1,9}})___(?P<y>[0-9]{{1,9}})", re.DOTALL
)


@dataclass(frozen=True)
class PatchName:
    """The parts of the name of a patch.

    Attributes:
        image: Name of the original image, without its extension.
        scale: The window's size in pixels of the original image, or the devkit's rate.
        x, y: The window's top left corner, in pixels of the image resized by ``rate``.
    """

    image: str
    scale: float
    x: int
    y: int

    @property
    def rate(self) -> float:
        """How much the image was resized before it was cut: image point = ((x, y) + patch point) / rate."""
        return 1.0 if self.scale >= MIN_SIZE else self.scale


def format_patch_name(image: str, size: int, x: int, y: int) -> str:
    """The name, without extension, of the patch at (x, y) of ``image``.

    >>> format_patch_name("P0001", 1024, 824, 0)
    'P0001__1024__824___0'
    """
    return f"{image}__{size}__{x}___{y}"


def parse_patch_name(name: str) -> PatchName:
    """Parse the name of a patch (without extension), from the right, since an image name may contain ``__``.

    Raises:
        DataError: The name is not that of a patch.

    >>> parse_patch_name("a__b__1024__824___0")
    PatchName(image='a__b', scale=1024, x=824, y=0)
    >>> parse_patch_name("P0001__0.5__824___0").rate
    0.5
    """
    match = _NAME.fullmatch(name)
    if match is None or float(match["scale"]) == 0:
        problem = "is not the name of a patch: {image}__{size}__{x}___{y}"
        stem, dot, _ = name.rpartition(".")
        if dot and _NAME.fullmatch(stem):
            raise DataError(name, problem, "leave out the extension of the file")
        raise DataError(name, problem, "cut the images with 'tiltbox split'")
    scale = float(match["scale"])
    return PatchName(
        match["image"], int(scale) if scale.is_integer() else scale, int(match["x"]), int(match["y"])
    )
