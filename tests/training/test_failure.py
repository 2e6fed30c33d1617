from __future__ import annotations

import pytest

from tiltbox.errors import DataError, EndedError, TrainingError
from tiltbox.training.failure import ATTEMPT, forget_failure, read_failure, require_hope, write_failure

DIVERGED = TrainingError("step 7", "the loss is nan", "lower base_lr")
ENDED = EndedError("training", "was told to end", "start it again")


def test_passes_an_error_on(tmp_path):
    config = tmp_path / "config.py"
    assert read_failure(config) is None
    write_failure(config, DIVERGED)
    found = read_failure(config)
    assert type(found) is TrainingError and str(found) == str(DIVERGED)
    forget_failure(config)
    assert read_failure(config) is None
    forget_failure(config)


def test_what_ended_one_process_is_not_hidden_by_the_end_of_the_others(tmp_path):
    config = tmp_path / "config.py"
    write_failure(config, DIVERGED)
    write_failure(config, ENDED)
    assert str(read_failure(config)) == str(DIVERGED)
    write_failure(config, DataError("a.png", "cannot be read", "replace it"))
    assert isinstance(read_failure(config), DataError)


def test_the_last_end_is_the_one_that_is_told(tmp_path):
    config = tmp_path / "config.py"
    write_failure(config, EndedError("training", "was told to end (SIGTERM)", "start it again"))
    write_failure(config, EndedError("training", "was told to end (SIGUSR1)", "start it again"))
    assert "SIGUSR1" in str(read_failure(config))


@pytest.mark.parametrize(("there_are", "hopeless"), [(5000, True), (4000, True), (6000, False)])
def test_a_repetition_that_may_use_more_memory_has_hope(tmp_path, monkeypatch, there_are, hopeless):
    """Snakemake's usual way: mem_mb that grows with the attempt."""
    monkeypatch.setenv(ATTEMPT, "2")
    monkeypatch.setattr("tiltbox.training.failure.allowed_memory", lambda: there_are)
    config = tmp_path / "config.py"
    write_failure(config, TrainingError("training", "memory ran out", "allow more"), memory=5000)
    if hopeless:
        with pytest.raises(TrainingError, match="memory ran out"):
            require_hope(config)
    else:
        require_hope(config)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"kind": "Unknown"}', '{"kind": "DataError", "what": 1}']
)
def test_a_failure_of_another_version_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv(ATTEMPT, "2")
    (tmp_path / "failure.json").write_text(content)
    assert read_failure(tmp_path / "config.py") is None
    require_hope(tmp_path / "config.py")


@pytest.mark.parametrize(
    ("failure", "attempt", "hopeless"),
    [
        (DIVERGED, "2", True),
        (DIVERGED, "1", False),  # a person may have other reasons
        (DIVERGED, None, False),
        (ENDED, "3", False),
        (DataError("a.png", "cannot be read", "replace it"), "2", False),  # a network drive may recover
        (None, "2", False),
    ],
)
def test_a_repetition_without_hope_is_refused(tmp_path, monkeypatch, failure, attempt, hopeless):
    config = tmp_path / "config.py"
    if failure:
        write_failure(config, failure)
    if attempt:
        monkeypatch.setenv(ATTEMPT, attempt)
    else:
        monkeypatch.delenv(ATTEMPT, raising=False)
    if hopeless:
        with pytest.raises(TrainingError, match="the loss is nan"):
            require_hope(config)
    else:
        require_hope(config)
        assert read_failure(config) is None, "it does not count for the attempt after this one"
