"""Fast reading and writing of Task1 lines, compared with the simple way, line by line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltbox.dota.task1 import ClassDetections, _parse_any, parse_task1
from tiltbox.dota.task1_text import _formatted, format_rows, parse_plain

NAMES = ("P0006", "a__1024__0___0", "größe", "x")
number = st.one_of(
    st.floats(-1e4, 1e4), st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**20), 10**20)
)


def line(name: str, *numbers: object) -> str:
    return " ".join([name, *map(str, numbers)]) + "\n"


@given(st.lists(st.tuples(st.sampled_from(NAMES), *[number] * 9), min_size=1, max_size=5))
def test_reading(rows):
    """Every number is read as Python wrote it."""
    text = "".join(line(*row) for row in rows)
    fast, plain = parse_plain(text.encode()), _parse_any(text, "x")
    assert [fast.names[index] for index in fast.image] == [row[0] for row in rows]
    np.testing.assert_array_equal(fast.numbers, plain.numbers)
    assert fast.lines is None


@pytest.mark.parametrize(
    "word", ["1", "+1", ".5", "5.", "-0.0", "1e3", "1E-3", "nan", "NaN", "inf", "-Infinity"]
)
@pytest.mark.parametrize("digits", ["0.1234567890123456789", "123456789012345678901", "0.30000000000000004"])
def test_spellings_of_numbers(word, digits):
    """Fast and slow reading give the same result."""
    content = line("P1", word, digits, *range(7)).encode()
    found = parse_task1(content, "x")
    expected = _parse_any(content.decode(), "x").numbers[0]
    np.testing.assert_array_equal(found.scores, expected[:1])
    beyond = np.abs(expected[1:]) > 1e7
    np.testing.assert_array_equal(found.qboxes[0], np.where(beyond, np.inf, expected[1:]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P1  0.5 1 2 3 4 5 6 7 8\n",
        b" P1 0.5 1 2 3 4 5 6 7 8\n",
        b"P1 0.5 1 2 3 4 5 6 7 8 \n",
        b"P1\t0.5 1 2 3 4 5 6 7 8\n",
        b"P1 1_0 1 2 3 4 5 6 7 8\n",
        b"P1 0.5 1 2 3 4 5 6 7\n",
        b"P1 0x1 1 2 3 4 5 6 7 8\n",
        b"P1 0.5 1 2 3 4 5 6 7 8\rP2 0.5 1 2 3 4 5 6 7 8\n",
        "P\u00a01 0.5 1 2 3 4 5 6 7 8\n".encode(),  # str.split takes it for whitespace
        b"P\xff 0.5 1 2 3 4 5 6 7 8\n",
        b'"P1" 0.5 1 2 3 4 5 6 7 "8"\n',
    ],
)
def test_what_is_not_plain_is_left_to_the_plain_way(content):
    assert parse_plain(content) is None


def test_blank_lines_count():
    row = line("P1", *range(9))
    assert parse_plain(f"\n{row}\r\n\n{row}".encode()).lines.tolist() == [2, 5]
    assert parse_plain(f"{row}{row}".encode()).lines is None
    assert len(parse_plain(b"\n").lines) == 0


def test_many_blocks(monkeypatch):
    """Arrow reads in blocks, each with its own names."""
    rows = [line(f"P{number % 700}", *range(number, number + 9)) for number in range(40_000)]
    found = parse_plain("".join(rows).encode())
    assert [found.names[index] for index in found.image[::999]] == [
        f"P{n % 700}" for n in range(0, 40_000, 999)
    ]
    assert found.numbers[:, 0].tolist() == list(range(40_000))


coordinates = st.one_of(st.floats(-1e5, 1e5), st.floats(-1e14, 1e14), st.just(-0.001), st.just(1e300))


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0, 1), *[coordinates] * 8), max_size=6))
def test_writing(rows):
    names = [row[0] for row in rows]
    numbers = np.array([row[1:] for row in rows]).reshape(-1, 9)
    part = ClassDetections.of(names, numbers[:, 0], numbers[:, 1:])
    found = b"".join(format_rows(part.names, part.image, part.scores, part.qboxes))
    scaled = np.rint(numbers * [1e9, *[100.0] * 8])
    assert found == _formatted(part.names, part.image, scaled)
    # Within one unit in the last place of Python's own formatting: ties may round the other way.
    for words, row in zip(found.decode().splitlines(), rows, strict=True):
        name, score, *corners = words.split()
        assert name == row[0] and abs(float(score) - row[1]) <= 0.6e-9
        for word, value in zip(corners, row[2:], strict=True):
            assert abs(float(word) - value) <= 0.006 + 1e-15 * abs(value)


def test_numbers_are_written_as_python_writes_them():
    rng = np.random.default_rng(0)
    scores = rng.random(30_000).astype(np.float32).astype(np.float64)
    qboxes = np.round(rng.uniform(-300, 20_000, (30_000, 8)), 3)
    found = b"".join(format_rows(["P1"], np.zeros(30_000, np.int32), scores, qboxes)).decode().splitlines()
    rounded = np.round(qboxes, 2) + 0.0
    for text, score, corners in zip(found, scores.tolist(), rounded.tolist(), strict=True):
        assert text == f"P1 {score:.9f} {' '.join(f'{corner:.2f}' for corner in corners)}"
