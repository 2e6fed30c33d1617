"""The leaderboard as Markdown, aligned so that it also reads well as plain text."""

from __future__ import annotations

from tiltbox.report.cells import Cell, Table
from tiltbox.report.leaderboard import Leaderboard


def markdown(board: Leaderboard) -> str:
    blocks = [f"# {board.title}"]
    for section in board.sections:
        blocks += [f"## {section.title}", f"{section.table.caption}.", markdown_table(section.table)]
        blocks += section.table.notes
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """
    >>> cells = (Cell("xs"), Cell("41.20", kind="best")), (Cell("a|b"), Cell("–"))
    >>> print(markdown_table(Table("", ("model", "AP50"), cells)))
    | model |      AP50 |
    | :---- | --------: |
    | xs    | **41.20** |
    | a\\|b  |         – |
    """
    rows = [table.columns, *(tuple(map(_text, row)) for row in table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths, table.words) for row in rows]
    rule = [
        f":{'-' * (width - 1)}" if at < table.words else f"{'-' * (width - 1)}:"
        for at, width in enumerate(widths)
    ]
    return "\n".join([lines[0], _line(rule, widths, table.words), *lines[1:]])


def _line(row: tuple[str, ...] | list[str], widths: list[int], words: int) -> str:
    padded = (
        text.ljust(width) if at < words else text.rjust(width)
        for at, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


def _text(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    if cell.link:
        return f"[{text}]({cell.link})"
    return f"**{text}**" if cell.kind == "best" else text
