"""Tables as data, and figures as text; Markdown, the page and the terminal all show the same ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tiltbox.scores import MISSING


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        link: A file, relative to the leaderboard.
        kind: ``best`` of its column, or for a difference ``better`` or ``worse``.
        share: From 0 to 1, shown as the strength of a shade.
        sort: What the page sorts by, if not by the number at the start of the text.
    """

    text: str
    link: str | None = None
    kind: Literal["", "best", "better", "worse"] = ""
    share: float | None = None
    sort: float | None = None


@dataclass(frozen=True)
class Table:
    """A caption, column names and rows of as many cells; the first cell of a row names it.

    Attributes:
        words: The number of leading columns with words rather than figures.
        group: The size of groups of rows that belong together, if any.
        total: Whether the last row summarises the others.
        notes: Sentences to put below the table.
        sortable: Whether its rows keep their meaning in any order.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    group: int | None = None
    total: bool = False
    notes: tuple[str, ...] = ()
    sortable: bool = True


def percent(value: float | None) -> str:
    """A fraction as percent.

    >>> percent(0.75877), percent(None)
    ('75.88', '–')
    """
    return MISSING if value is None else f"{100 * value:.2f}"


def signed(value: float | None, decimals: int = 2) -> str:
    """A difference with its sign.

    >>> signed(0.774), signed(-1.5), signed(0.0), signed(None)
    ('+0.77', '−1.50', '±0.00', '–')
    """
    if value is None:
        return MISSING
    text = f"{abs(value):.{decimals}f}"
    sign = "±" if not float(text) else "+" if value > 0 else "−"
    return sign + text


def degrees(value: float | None) -> str:
    """
    >>> degrees(4.26), degrees(None)
    ('4.3', '–')
    """
    return MISSING if value is None else f"{value:.1f}"


def difference(value: float | None, *, better: Literal["more", "less"], decimals: int = 2) -> Cell:
    """A cell with the signed value, marked as better or worse."""
    text = signed(value, decimals)
    if text[0] not in "+−":
        return Cell(text)
    return Cell(text, kind="better" if (text[0] == "+") == (better == "more") else "worse")


def interval(bounds: tuple[float | None, float | None] | None, *, signs: bool = False) -> str:
    """An interval between two fractions, in percent.

    >>> interval((0.5, 0.625)), interval((-0.01, 0.5), signs=True), interval(None)
    ('50.00 to 62.50', '−1.00 to +50.00', '–')
    """
    low, high = bounds or (None, None)
    if low is None or high is None:
        return MISSING
    return " to ".join(signed(100 * bound) if signs else percent(bound) for bound in (low, high))


def mark(line: tuple[Cell, ...], column: int) -> tuple[Cell, ...]:
    """The line with the cell of a column marked as the best."""
    return tuple(replace(cell, kind="best") if at == column else cell for at, cell in enumerate(line))


def aligned(columns: tuple[str, ...], rows: list[tuple[str, ...]], words: int = 1) -> list[str]:
    """Lines of a plain text table: words to the left, figures to the right.

    >>> aligned(("model", "AP50"), [("xs", "41.20"), ("s", "–")])
    ['model   AP50', 'xs     41.20', 's          –']
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if at < words else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [columns, *rows]
    ]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """
    >>> counted(1, "image"), counted(0, "image"), counted(2, "class", "classes")
    ('1 image', '0 images', '2 classes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
