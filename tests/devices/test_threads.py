from __future__ import annotations

import torch

from tiltbox.devices.threads import cpu_threads


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with cpu_threads(3):
        assert torch.get_num_threads() == 3
        with cpu_threads(None):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
