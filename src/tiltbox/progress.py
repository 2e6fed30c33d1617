"""One progress bar for all stages: on stderr, silent when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` and show how far it has come."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=label, total=total, file=sys.stderr, disable=not sys.stderr.isatty()))
