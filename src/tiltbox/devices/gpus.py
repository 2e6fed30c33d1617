"""The GPUs of this machine, counted without torch: importing it costs seconds, starting CUDA more."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tiltbox.errors import SettingsError

DEVICES = Path("/dev")
SECONDS = 10  # the time that nvidia-smi may take


def named_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES lets this process see; None where it is not set.

    As in CUDA, whatever follows a ``-1`` is not seen.
    """
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        return None
    names = [name.strip() for name in variable.split(",")]
    return [name for name in names[: names.index("-1") if "-1" in names else None] if name]


def gpus_here() -> int:
    """The number of GPUs that a process started here would see.

    Once PyTorch is loaded, :func:`tiltbox.devices.leases.gpu_count` knows how many it can use, which are
    none if it was built without CUDA.
    """
    named = named_gpus()
    if named is not None:
        return len(named)
    return len(list(DEVICES.glob("nvidia[0-9]*"))) or _listed_gpus()


def require_gpus(asked: int, here: int, option: str) -> int:
    """The number that is asked for.

    Args:
        option: How the user asks for GPUs, up to the number: ``"gpus="`` or ``"--gpus "``.

    Raises:
        SettingsError: There are fewer.
    """
    if asked > here:
        problem = f"asks for {asked}, but this machine has {here}"
        raise SettingsError(option.rstrip("= "), problem, f"choose {option}{here}")
    return asked


def _listed_gpus() -> int:
    """The number of GPUs that ``nvidia-smi`` lists, for WSL2, which has no device files."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
