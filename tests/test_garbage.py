from __future__ import annotations

import gc

import pytest

from tiltbox.garbage import rarely_searched


def test_old_objects_are_rarely_searched_until_it_ends():
    before = gc.get_threshold()
    with pytest.raises(KeyError), rarely_searched():
        assert gc.get_threshold() == (before[0], before[1], 100 * before[2])
        raise KeyError
    assert gc.get_threshold() == before and gc.isenabled()
