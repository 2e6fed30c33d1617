from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial

import pytest

from tiltbox.compiled import compiled


def test_functions_compile_where_nothing_can_be_cached(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])

    def twice(number):
        return 2 * number

    assert compiled(twice)(4) == 8


def test_linear_algebra_is_left_alone():
    """Not imported with the kernels, but still available, and kept if it was imported before."""
    code = (
        "import sys\n"
        "import tiltbox.compiled\n"
        "assert 'scipy.linalg' not in sys.modules\n"
        "import scipy.linalg\n"
        "assert scipy.linalg.det([[2.0]]) == 2\n"
        "del sys.modules['tiltbox.compiled']\n"
        "import tiltbox.compiled\n"
        "assert sys.modules['scipy.linalg'] is scipy.linalg\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


CACHED = """
from tiltbox.compiled import compiled

@compiled
def twice(number):
    return 2 * number

print(twice(4))
"""


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_damaged_files_of_the_cache_are_replaced(tmp_path, suffix, content):
    (tmp_path / "a.py").write_text(CACHED)
    run = partial(
        subprocess.run,
        [sys.executable, tmp_path / "a.py"],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run().stdout == "8\n"
    (damaged,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    damaged.write_bytes(content)
    assert run().stdout == "8\n"
    assert damaged.read_bytes() != content


def test_a_full_disk_keeps_nothing_from_being_compiled(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def twice(number):
        return 2 * number

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._open_for_write", full)
    assert compiled(twice)(4) == 8


def test_processes_that_start_together_compile_once(tmp_path):
    (tmp_path / "a.py").write_text(f"{CACHED}\nprint(sum(twice.stats.cache_misses.values()))\n")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    begun = [
        subprocess.Popen(
            [sys.executable, tmp_path / "a.py"], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    printed = [process.communicate()[0].split() for process in begun]
    assert sorted(printed) == [["8", "0"], ["8", "0"], ["8", "1"]]
