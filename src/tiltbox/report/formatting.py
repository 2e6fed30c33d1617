"""Figures and counts as text: the same in Markdown, on the page and on the terminal."""

from __future__ import annotations

from tiltbox.scores import MISSING


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


def interval(bounds: tuple[float | None, float | None] | None, *, signs: bool = False) -> str:
    """An interval between two fractions, in percent.

    >>> interval((0.5, 0.625)), interval((-0.01, 0.5), signs=True), interval(None)
    ('50.00 to 62.50', '−1.00 to +50.00', '–')
    """
    low, high = bounds or (None, None)
    if low is None or high is None:
        return MISSING
    return " to ".join(signed(100 * bound) if signs else percent(bound) for bound in (low, high))


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
