"""Tables as data: their cells, and marks of them; Markdown and the page show the same ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tiltbox.report.formatting import signed


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


def difference(value: float | None, *, better: Literal["more", "less"], decimals: int = 2) -> Cell:
    """A cell with the signed value, marked as better or worse."""
    text = signed(value, decimals)
    if text[0] not in "+−":
        return Cell(text)
    return Cell(text, kind="better" if (text[0] == "+") == (better == "more") else "worse")


def mark(line: tuple[Cell, ...], column: int) -> tuple[Cell, ...]:
    """The line with the cell of a column marked as the best."""
    return tuple(replace(cell, kind="best") if at == column else cell for at, cell in enumerate(line))
