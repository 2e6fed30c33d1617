"""The GPUs of a training or prediction, which no other may use meanwhile.

Snakemake counts GPUs but does not say which; so each training holds a lock file for each device while it
runs, and two trainings of one user on one machine never share a device by accident. The lock ends with the
process, however it ends. SLURM gives each job its own devices and may number them from 0 in every job, so
different jobs, or steps of a job, do not wait for each other.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tiltbox.devices.gpus import named_gpus
from tiltbox.errors import SettingsError

log = logging.getLogger("tiltbox")
POLL_SECONDS = 2.0


@contextmanager
def leased_gpus(count: int) -> Iterator[list[str]]:
    """Hold ``count`` of the visible GPUs and make only them visible to this process and its children.

    Waits while too few are free. With a count of 0, no GPU is visible.
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


def gpu_count() -> int:
    """GPUs that this process may use, counted without starting CUDA in it."""
    return len(_visible_gpus())


def gpu_name() -> str:
    """The name of the first visible GPU, queried in a separate process, so that CUDA starts only there."""
    program = "import torch; print(torch.cuda.get_device_name())"
    words = [sys.executable, "-c", program]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()


def require_cuda() -> None:
    """Raise SettingsError unless PyTorch can use the visible GPUs, which starts CUDA in this process."""
    import torch

    if not torch.cuda.is_available():
        problem = (
            f"PyTorch {torch.__version__} cannot use the GPU: it was built for CPUs, the driver is missing or"
            " too old, or CUDA_VISIBLE_DEVICES names no device"
        )
        raise SettingsError("--gpus", problem, "install a PyTorch that fits the driver, or choose --gpus 0")


def _visible_gpus() -> list[str]:
    import torch

    named = named_gpus()
    return [str(index) for index in range(torch.cuda.device_count())] if named is None else named


def _acquire(count: int, devices: list[str], locks: ExitStack) -> list[str]:
    folder = _lock_folder()
    folder.mkdir(exist_ok=True)
    held = _locked(count, devices, folder)
    if len(held) < count:
        log.info("waiting for %d free %s", count, "GPU" if count == 1 else "GPUs")
    while len(held) < count:
        time.sleep(POLL_SECONDS)
        held = _locked(count, devices, folder)
    for lock in held.values():
        locks.callback(lock.release)
    return list(held)


def _lock_folder() -> Path:
    """One for all that number the GPUs alike: jobs, steps and, with GPUs of their own, tasks do not."""
    names = ["SLURM_JOB_ID", "SLURM_STEP_ID"]
    if "SLURM_GPUS_PER_TASK" in os.environ:
        names.append("SLURM_LOCALID")
    job = [os.environ[name] for name in names if name in os.environ]
    return Path(tempfile.gettempdir()) / "-".join(["tiltbox-gpus", str(os.getuid()), *job])


def _locked(count: int, devices: list[str], folder: Path) -> dict[str, FileLock]:
    """The locks of this many devices, or none: two waiting trainings must not block each other."""
    held: dict[str, FileLock] = {}
    for device in devices:
        if len(held) == count:
            return held
        lock = FileLock(folder / f"{device}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            held[device] = lock
    if len(held) == count:
        return held
    for lock in held.values():
        lock.release()
    return {}
