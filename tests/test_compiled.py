from __future__ import annotations

from tiltbox.compiled import compiled


def test_functions_compile_where_nothing_can_be_cached(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])

    def twice(number):
        return 2 * number

    assert compiled(twice)(4) == 8
