"""What a training or a prediction computes on: leased GPUs, or a set number of CPU threads.

Snakemake counts GPUs but does not say which; so each training holds a lock file per device while it
runs, and two on one machine never share a device by accident. The lock goes with the process, however
that ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 2.0


@contextmanager
def leased_gpus(count: int) -> Iterator[list[str]]:
    """Hold ``count`` of the visible GPUs and make them, alone, visible to this process and its children.

    Waits while too few are free. With a count of 0 no GPU is visible.
    """
    visible = _visible_gpus()
    if count > len(visible):
        raise ValueError(f"{count} GPUs asked for, {len(visible)} visible")
    with ExitStack() as locks:
        devices = _acquire(count, visible, locks)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        try:
            yield devices
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Have torch compute with ``count`` threads; None leaves their number as it is.

    The number decides how sums are split and which kernels run, so results depend on it in their last
    digits, and a training amplifies these.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gpu_count() -> int:
    """GPUs that this process may use, counted without starting CUDA in it."""
    return len(_visible_gpus())


def _visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]


def _acquire(count: int, devices: list[str], locks: ExitStack) -> list[str]:
    folder = Path(tempfile.gettempdir()) / f"tiltbox-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        held: list[tuple[str, FileLock]] = []
        for device in devices:
            if len(held) == count:
                break
            lock = FileLock(folder / f"{device}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            held.append((device, lock))
        if len(held) == count:
            for _, lock in held:
                locks.callback(lock.release)
            return [device for device, _ in held]
        for _, lock in held:  # all or none, so that two waiting trainings cannot block each other
            lock.release()
        time.sleep(POLL_SECONDS)
