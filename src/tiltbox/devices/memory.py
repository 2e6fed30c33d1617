"""The memory that this process may use, and whether the kernel ended processes because it ran out.

Linux groups processes (cgroups): a container, a SLURM job or a service has a limit of its own. Elsewhere the
machine's memory is the limit, and nothing tells why a process was killed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    limit: str
    events: str


_FILES = {1: _Files("memory.limit_in_bytes", "memory.oom_control"), 2: _Files("memory.max", "memory.events")}


def allowed_memory() -> int:
    """Bytes that this process and those beside it in its container or job may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    version, folders = _groups()
    for folder in folders:
        text = _text(folder / _FILES[version].limit).strip()
        if text.isdigit():  # or "max"
            limits.append(int(text))
    return min(limits)


def killed_for_memory() -> int:
    """How many processes the kernel has killed because memory ran out, of this process's group or, without
    groups, of the machine; 0 where it does not count them.
    """
    version, folders = _groups()
    counters = [folder / _FILES[version].events for folder in folders]  # those further out count more groups
    for file in (*counters, PROC / "vmstat"):
        for line in _text(file).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _groups() -> tuple[int, list[Path]]:
    """The version of the groups that limit memory, and the folders of this process's group and those around
    it, from the inside out.
    """
    version, inside = 2, ""
    for line in _text(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            version, inside = 1, path
            break
        if not controllers:
            inside = path
    root = GROUPS / "memory" if version == 1 else GROUPS
    own = root / inside.lstrip("/")
    folders = [own, *own.parents]
    folders = folders[: folders.index(root) + 1]
    return version, [folder for folder in folders if folder.is_dir()]  # a container may not see its own path


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
