"""Limits and counts as Linux states them, in copies of its files and for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiltbox.devices import memory
from tiltbox.devices.memory import allowed_memory, killed_for_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED = str(2**63 - 4096)  # of version 1
V1 = "5:devices:/\n4:cpu,memory:/jobs/7\n0::/elsewhere\n"
V2 = "0::/jobs/7\n"


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """Writes the files that Linux would have, given by their paths; all others are missing."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def group(version: int, path: str, limit: str, killed: int) -> dict[str, str]:
    if version == 1:
        texts = {"memory.limit_in_bytes": limit, "memory.oom_control": f"under_oom 0\noom_kill {killed}\n"}
        folder = f"groups/memory/{path}"
    else:
        texts = {"memory.max": limit, "memory.events": f"low 0\noom 9\noom_kill {killed}\noom_group_kill 5\n"}
        folder = f"groups/{path}"
    return {f"{folder}/{name}": text for name, text in texts.items()}


@pytest.mark.parametrize(("version", "says", "none"), [(1, V1, UNLIMITED), (2, V2, "max\n")])
def test_the_tightest_limit_and_the_counts_of_the_own_group(linux, version, says, none):
    linux({"proc/self/cgroup": says, "proc/vmstat": "pgfault 1\noom_kill 77\n"})
    linux(
        group(version, "jobs/7", none, 3) | group(version, "jobs", "5000\n", 4) | group(version, ".", none, 5)
    )
    assert (allowed_memory(), killed_for_memory()) == (5000, 3)
    linux(group(version, "jobs/7", "4000\n", 3))
    assert allowed_memory() == 4000


def test_a_container_that_sees_its_group_as_the_root(linux):
    """Docker with version 1: the path is that outside of the container."""
    linux({"proc/self/cgroup": "4:memory:/docker/0f3a\n"} | group(1, ".", "6000\n", 2))
    assert (allowed_memory(), killed_for_memory()) == (6000, 2)


def test_a_group_without_a_count_of_its_own(linux):
    """Version 2 counts memory further out if the inner group does not limit it."""
    linux({"proc/self/cgroup": V2, "proc/vmstat": "oom_kill 77\n", "groups/jobs/7/cgroup.procs": ""})
    linux(group(2, "jobs", "5000\n", 3))
    assert (allowed_memory(), killed_for_memory()) == (5000, 3)


def test_without_groups_the_machine_counts(linux):
    linux({"proc/self/cgroup": V2, "proc/vmstat": "pgfault 1\noom_kill 77\n"})
    assert (allowed_memory(), killed_for_memory()) == (MACHINE, 77)


def test_nothing_is_known_on_another_system(linux):
    assert (allowed_memory(), killed_for_memory()) == (MACHINE, 0)


EATER = """
from tiltbox.devices.memory import allowed_memory, killed_for_memory
import subprocess, sys
before = killed_for_memory()
assert allowed_memory() == 200 * 2**20
code = subprocess.call([sys.executable, "-c", "bytearray(b'x') * (400 * 2**20)"])
print(code, killed_for_memory() - before)
"""


@pytest.fixture
def limited() -> list[str]:
    """The beginning of a command that runs a program in a group with a limit of 200 MiB."""
    group = Path(f"/sys/fs/cgroup/memory/tiltbox-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(200 * 2**20))
    except OSError:
        pytest.skip("needs a control group (version 1) that may be written")
    yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    group.rmdir()


def test_a_process_that_the_kernel_kills(limited):
    said = subprocess.run(
        [*limited, sys.executable, "-c", EATER], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["-9", "1"]
