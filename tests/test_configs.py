from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from tiltbox.configs import Settings, fingerprint, known_name, load, read_yaml, validated
from tiltbox.errors import SettingsError


class Corner(Settings):
    side: Literal["left", "right"] = "left"
    size: int = Field(3, ge=1)


class Box(Settings):
    width: float
    count: int | Literal["auto"] = "auto"
    corner: Corner = Corner()
    maybe: Corner | None = None
    named: dict[str, Corner] = Field(default_factory=dict)
    listed: tuple[Corner, ...] = ()


def refused(content: dict) -> str:
    with pytest.raises(SettingsError) as error:
        validated(Box, content, "box.yaml")
    return str(error.value)


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "box.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "[1, 2]", "just words"])
def test_a_file_without_keys(written, text):
    path = written(text)
    with pytest.raises(SettingsError) as error:
        load(Box, path)
    assert str(error.value) == f"{path}: contains no keys; give width, count, corner, maybe, named, listed"


def test_load(written):
    box = load(Box, written("width: 2.5\nlisted: [{size: 4}]\ncount: 3\n"))
    assert (box.width, box.count, box.listed) == (2.5, 3, (Corner(size=4),))
    with pytest.raises(Exception, match="frozen"):
        box.width = 3


@pytest.mark.parametrize(
    ("content", "place", "suggestion"),
    [
        ({"width": 1, "cuont": 2}, "cuont", "did you mean 'count'?"),
        ({"width": 1, "zzz": 2}, "zzz", "choose one of width, count, corner, maybe, named, listed"),
        ({"width": 1, "corner": {"siez": 2}}, "corner.siez", "did you mean 'size'?"),
        ({"width": 1, "maybe": {"siez": 2}}, "maybe.siez", "did you mean 'size'?"),
        ({"width": 1, "named": {"top": {"siez": 2}}}, "named.top.siez", "did you mean 'size'?"),
        ({"width": 1, "listed": [{}, {"siez": 2}]}, "listed.1.siez", "did you mean 'size'?"),
    ],
)
def test_unknown_key(content, place, suggestion):
    assert refused(content) == f"box.yaml: {place}: unknown key; {suggestion}"


def test_missing_key():
    assert refused({}) == "box.yaml: width: is missing; add it"


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        ({"width": "wide"}, "width: 'wide' is not accepted (Input should be a valid number"),
        ({"width": None}, "width: None is not accepted"),
        ({"width": 1, "corner": {"size": 0}}, "corner.size: 0 is not accepted"),
        ({"width": 1, "corner": 3}, "corner: 3 is not accepted"),
        ({"width": 1, "maybe": {"side": "up"}}, "maybe.side: 'up' is not accepted"),
        ({"width": 1, "named": {"top": {"size": 0}}}, "named.top.size: 0 is not accepted"),
        ({"width": 1, "listed": [{}, {"size": 0}]}, "listed.1.size: 0 is not accepted"),
        ({"width": 1, 7: 2}, "7: 7 is not accepted"),
    ],
)
def test_wrong_value(content, begins):
    message = refused(content)
    assert message.startswith(f"box.yaml: {begins}")
    assert "; correct the value" in message


def test_a_union_is_named_by_its_key_and_lists_all_that_it_takes():
    message = refused({"width": 1, "count": "maybe"})
    assert message.startswith("box.yaml: count: 'maybe' is not accepted (")
    assert "valid integer" in message and "'auto'" in message


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("width: 1\ncount: [2\nnamed: 3\n", 3, "is not valid YAML"),
        ("width: 1\n\tcount: 2\n", 2, "is not valid YAML"),
        ("width: 1\ncount: 2\nwidth: 3\n", 3, "'width' is given twice"),
        ("width: 1\nnamed:\n  a: {}\n  b: {}\n  a: {}\n", 5, "'a' is given twice"),
    ],
)
def test_malformed_yaml_has_its_line(written, text, line, problem):
    path = written(text)
    with pytest.raises(SettingsError) as error:
        read_yaml(path)
    assert str(error.value).startswith(f"{path}:{line}: ") and problem in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(SettingsError, match="file not found; check the spelling"):
        read_yaml(tmp_path / "none.yaml")


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("content", [b"width: \xff\xfe", b"width: \x00"])
def test_no_text(written, content):
    with pytest.raises(SettingsError, match="is not valid UTF-8"):
        read_yaml(written(content))


def test_fingerprint_of_nothing_is_a_fingerprint():
    assert len(fingerprint()) == 12


def test_fingerprint_is_independent_of_order_and_layout(written):
    first = load(Box, written("width: 2\ncorner: {side: right, size: 4}\n"))
    second = load(Box, written("# a comment\ncorner:\n  size: 4\n  side: right\nwidth: 2.0\n"))
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_fingerprint_tells_settings_apart():
    settings = [Box(width=1), Box(width=2), Box(width=1, count=1), Box(width=1, listed=(Corner(),))]
    assert len({fingerprint(each) for each in settings}) == len(settings)
    assert fingerprint({"a": 1}, {"b": 2}) != fingerprint({"b": 2}, {"a": 1})


def test_fingerprint_is_the_same_everywhere():
    """Earlier results are recognised by it: printf '[{"width": 0.4}]' | sha256sum."""
    assert fingerprint({"width": 0.4}) == "d5a88ed8b68a"


def test_known_name():
    names = ["small", "large"]
    assert known_name("small", names, "variants.yaml", "variant") == "small"
    with pytest.raises(SettingsError) as error:
        known_name("smal", names, "variants.yaml", "variant")
    assert str(error.value) == "variants.yaml: unknown variant 'smal'; did you mean 'small'?"
    with pytest.raises(SettingsError, match="choose one of small, large"):
        known_name("x", names, "variants.yaml", "variant")
