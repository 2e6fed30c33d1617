"""The CPU threads of a training or prediction, a fixed number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Make torch compute with ``count`` threads; None leaves the number unchanged.

    The number decides how sums are split and which kernels run, so the last digits of results depend on it,
    and a training amplifies them.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
