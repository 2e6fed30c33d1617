"""history.csv across resumes, and the log lines."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tiltbox.training.history import COLUMNS, HistoryHook
from tiltbox.training.validation import Scores

ROWS = [
    "1,20,1e-3,3.0,1.0,2.0,9.5,,,",
    "2,40,1e-3,2.0,1.0,1.0,9.5,0.500000,0.250000,1.5",
    "3,60,1e-3,1.0,0.5,0.5,9.5,,,",
]


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
        max_epochs=5,
        train_loop=SimpleNamespace(stop_training=False, interruptible=nullcontext),
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
def test_an_epoch_without_a_checkpoint_is_repeated_and_its_row_dropped(history, step, epochs):
    HistoryHook().before_train(runner(history, step))
    assert written(history) == [",".join(COLUMNS), *ROWS[:epochs]]


def test_a_row_that_was_cut_off_is_dropped(history):
    path = history / "history.csv"
    path.write_bytes(path.read_bytes()[:-8])
    HistoryHook().before_train(runner(history, step=60))
    assert written(history) == [",".join(COLUMNS), *ROWS[:2]]


def test_a_history_of_an_earlier_version_gets_the_new_columns(history):
    old = [",".join(COLUMNS[:7]), *(",".join(row.split(",")[:7]) for row in ROWS)]
    (history / "history.csv").write_text("\n".join(old) + "\n")
    HistoryHook().before_train(runner(history, step=40))
    assert written(history) == [",".join(COLUMNS), ROWS[0], f"{old[2]},,,"]


def test_one_process_alone_changes_the_file(history):
    HistoryHook().before_train(runner(history, step=20, rank=1))
    assert len(written(history)) == 4


def test_a_row_whose_epoch_has_not_ended_is_dropped(history):
    """It was killed between the row and the next checkpoint."""
    state = runner(history, step=60)
    state.epoch = 2
    HistoryHook().before_train(state)
    assert written(history) == [",".join(COLUMNS), *ROWS[:2]]


def test_an_empty_history(tmp_path):
    (tmp_path / "history.csv").touch()
    HistoryHook().before_train(runner(tmp_path, step=20))
    assert not (tmp_path / "history.csv").exists()


@pytest.mark.parametrize(("rank", "mean"), [(0, 2.0), (1, 3.0)])
def test_sums_of_an_unfinished_epoch_continue(tmp_path, rank, mean):
    """With those of this process, though the first one saves those of all."""
    checkpoint: dict = {}
    for loss in (1.0, 3.0):
        hook = HistoryHook()
        hook.before_train(runner(tmp_path, step=0))
        hook.after_train_iter(runner(tmp_path, step=0), 0, outputs=losses(loss))
        hook.gather_state(runner(tmp_path, step=1))
        hook.before_save_checkpoint(runner(tmp_path, step=1), mine := {})
        checkpoint.setdefault("history", []).extend(mine["history"])
    resumed, state = HistoryHook(), runner(tmp_path, step=1, rank=rank)
    resumed.after_load_checkpoint(state, checkpoint)
    resumed.before_train(state)
    resumed.after_train_iter(state, 0, outputs=losses(3.0))
    assert set(resumed._means().values()) == {mean}


def losses(value: float) -> dict[str, torch.Tensor]:
    return dict.fromkeys(("loss", "loss_cls", "loss_bbox"), torch.tensor(value))


def test_resuming_without_a_history(tmp_path):
    HistoryHook().before_train(runner(tmp_path, step=20))
    assert not (tmp_path / "history.csv").exists()


LOSSES = losses(0.5)


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
            "epoch 1, step 6 of 100, 0:01:34 left: loss 0.500 (classes 0.500, boxes 0.500);"
            " 8.0 images a second"
        )


class Scored:
    """Stands for a validation: AP50 rises until the third epoch."""

    def __init__(self, settings: dict, work: Path) -> None:
        self.patience = settings["patience"]
        self.best: list[int] = []

    def remember(self, rows: list[dict]) -> None:
        self.best = [int(row["epoch"]) for row in rows if row["val_AP50"]]

    def is_due(self, epoch: int, epochs: int) -> bool:
        return epoch > 1

    def after_epoch(self, runner: object, epoch: int) -> Scores:
        self.best.append(epoch)
        return Scores(min(epoch, 3) / 10, 0.05, 7, 2.0)

    @property
    def gives_up(self) -> bool:
        return len(self.best) > self.patience


@pytest.fixture
def validated(tmp_path, monkeypatch):
    """Train through some epochs of a step; returns the hook and the last state of the runner."""
    monkeypatch.setattr("tiltbox.training.history.Validation", Scored)

    def run(first: int, last: int, patience: int = 9):
        hook, state = HistoryHook(), runner(tmp_path, step=first, validation={"patience": patience})
        state.epoch = first
        hook.before_train(state)
        for _ in range(first, last):
            hook.after_train_iter(state, 0, outputs=LOSSES)
            state.iter += 1
            hook.after_train_epoch(state)
            state.epoch += 1
        return hook, state

    return run


def test_scores_stand_in_the_row_of_their_epoch_and_in_the_lines_after_it(tmp_path, validated, caplog):
    caplog.set_level("INFO")
    hook, state = validated(0, 2)
    assert [row.split(",")[-3:] for row in written(tmp_path)[1:]] == [
        ["", "", ""],
        ["0.200000", "0.050000", "2.0"],
    ]
    hook._said = -1e9
    hook.after_train_iter(state, 0, outputs=LOSSES)
    assert caplog.messages[-1].endswith(" images a second; AP50 20.00, mAP 5.00 after epoch 2")


def test_a_training_whose_scores_do_not_rise_is_ended(validated, caplog):
    caplog.set_level("INFO")
    _, state = validated(0, 3, patience=1)
    assert state.train_loop.stop_training
    assert "training ends after epoch 3: the scores no longer rise" in caplog.messages


def test_one_that_was_ended_and_killed_then_is_not_gone_on_with(validated):
    validated(0, 3, patience=1)
    _, state = validated(3, 3, patience=1)
    assert state.train_loop.stop_training
