from __future__ import annotations

import pytest

from tiltbox.dota.patches import PatchName, format_patch_name, parse_patch_name
from tiltbox.errors import DataError


@pytest.mark.parametrize(
    "image", ["P0001", "a__b", "a_", "_a", "a__", "P1__1024__0___0", "Köln 3", "x.y", "12"]
)
@pytest.mark.parametrize(("size", "x", "y"), [(1024, 0, 0), (682, 549, 12345), (64, 7, 0)])
def test_what_is_formatted_is_parsed(image, size, x, y):
    name = parse_patch_name(format_patch_name(image, size, x, y))
    assert name == PatchName(image, size, x, y)
    assert name.rate == 1


@pytest.mark.parametrize(
    ("name", "scale", "rate"),
    [
        ("P0001__1__824___0", 1, 1),
        ("P0001__1.0__824___0", 1, 1),
        ("P0001__0.5__824___0", 0.5, 0.5),
        ("P0001__1.5__824___0", 1.5, 1.5),
        ("P0001__2__824___0", 2, 2),
        ("P0001__600__824___0", 600, 1),
    ],
)
def test_sizes_and_the_rates_of_the_devkit(name, scale, rate):
    parsed = parse_patch_name(name)
    assert parsed == PatchName("P0001", scale, 824, 0)
    assert parsed.rate == rate


@pytest.mark.parametrize(
    "name",
    [
        "",
        "P0001",
        "P0001__824___0",
        "__1024__0___0",
        "P0001__1024__0__0",
        "P0001__1024__-8___0",
        "P0001__1024__0.5___0",
        "P0001__0__0___0",
        "P0001__1024__0___0.png",
        "P0001__1024__0___0 ",
        "P0001__１０２４__0___0",
    ],
)
def test_no_patch_name(name):
    with pytest.raises(DataError, match="not the name of a patch"):
        parse_patch_name(name)
