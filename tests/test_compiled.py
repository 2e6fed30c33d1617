from __future__ import annotations

import subprocess
import sys

from tiltbox.compiled import compiled


def test_functions_compile_where_nothing_can_be_cached(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])

    def twice(number):
        return 2 * number

    assert compiled(twice)(4) == 8


def test_linear_algebra_is_left_alone():
    """Not imported with the kernels, there for whoever wants it, and kept where it was imported before."""
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
