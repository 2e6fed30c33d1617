from __future__ import annotations

import pytest

from tiltbox.errors import CheckpointError
from tiltbox.training.results import publish


def test_a_training_without_a_complete_checkpoint_says_so(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.py").write_text("validation = None\n")
    (work / "history.csv").write_text("epoch,step,seconds\n1,5,2.0\n")
    (work / "step_5.pth").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="work: contains no complete checkpoint; free some space"):
        publish(work, tmp_path, {}, ("ship",))
    assert list(tmp_path.iterdir()) == [work]
