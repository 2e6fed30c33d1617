"""history.csv over resumes, and where MLflow does not answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tiltbox import tracking
from tiltbox.training.history import COLUMNS, HistoryHook

ROWS = ["1,20,1e-3,3.0,1.0,2.0,9.5", "2,40,1e-3,2.0,1.0,1.0,9.5", "3,60,1e-3,1.0,0.5,0.5,9.5"]


def runner(folder: Path, step: int, rank: int = 0, **settings: object) -> SimpleNamespace:
    optimizer = SimpleNamespace(get_lr=lambda: {"lr": [1e-3]})
    return SimpleNamespace(
        work_dir=folder,
        rank=rank,
        world_size=2,
        iter=step,
        max_iters=100,
        epoch=step // 20,
        cfg=settings,
        optim_wrapper=optimizer,
        train_dataloader=SimpleNamespace(batch_size=4),
    )


def written(folder: Path) -> list[str]:
    return (folder / "history.csv").read_text().splitlines()


@pytest.fixture
def history(tmp_path):
    # As csv writes it.
    (tmp_path / "history.csv").write_bytes(
        "".join(f"{row}\r\n" for row in [",".join(COLUMNS), *ROWS]).encode()
    )
    return tmp_path


def test_a_new_training_has_no_history(history):
    HistoryHook().before_train(runner(history, step=0))
    assert not (history / "history.csv").exists()


@pytest.mark.parametrize(("step", "epochs"), [(20, 1), (40, 2), (60, 3)])
def test_an_epoch_without_a_checkpoint_comes_again_and_is_dropped(history, step, epochs):
    HistoryHook().before_train(runner(history, step))
    assert written(history) == [",".join(COLUMNS), *ROWS[:epochs]]


def test_a_row_that_was_cut_off_is_dropped(history):
    path = history / "history.csv"
    path.write_bytes(path.read_bytes()[:-8])
    HistoryHook().before_train(runner(history, step=60))
    assert written(history) == [",".join(COLUMNS), *ROWS[:2]]


def test_one_process_alone_changes_the_file(history):
    HistoryHook().before_train(runner(history, step=20, rank=1))
    assert len(written(history)) == 4


def test_going_on_without_a_history(tmp_path):
    HistoryHook().before_train(runner(tmp_path, step=20))
    assert not (tmp_path / "history.csv").exists()


LOSSES = {name: SimpleNamespace(item=lambda: 0.5) for name in ("loss", "loss_cls", "loss_bbox")}


@pytest.mark.parametrize(("rank", "steps", "said"), [(0, 0, 1), (0, 3, 1), (0, 6, 2), (0, 16, 4), (1, 16, 0)])
def test_a_line_after_the_first_step_and_every_five_seconds(tmp_path, monkeypatch, caplog, rank, steps, said):
    """A step takes a second here, for 8 images of two processes."""
    caplog.set_level("INFO")
    clock = [0]
    monkeypatch.setattr("tiltbox.training.history.time.monotonic", lambda: clock[0])
    hook, state = HistoryHook(), runner(tmp_path, step=0, rank=rank)
    hook.before_train(state)
    for _ in range(steps + 1):
        clock[0] += 1
        hook.after_train_iter(state, 0, outputs=LOSSES)
        state.iter += 1
    assert len(caplog.messages) == said
    if said > 1:
        assert caplog.messages[1] == (
            "step 6 of 100, epoch 1: loss 0.500, loss_cls 0.500, loss_bbox 0.500;"
            " 8.0 images a second, 0:01:34 left"
        )


def test_training_goes_on_where_mlflow_does_not_answer(history, monkeypatch, caplog):
    def fail(run_id: str, path: Path) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(tracking, "log_history", fail)
    hook, state = HistoryHook(), runner(history, step=60, tracking="run")
    hook.before_train(state)
    hook.after_train_iter(state, 0, outputs=LOSSES)
    hook.after_train_epoch(state)
    assert caplog.messages == ["MLflow did not take epoch 4: no answer"]
    assert len(written(history)) == 5
