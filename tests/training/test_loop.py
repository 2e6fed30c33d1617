"""A training that is told to end at any step, and its end after a resume: the same bits as without."""

from __future__ import annotations

import csv
import multiprocessing
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.errors import DataError
from tiltbox.mini import render_mini
from tiltbox.model.compat import import_openmmlab
from tiltbox.model.variants import find_variant
from tiltbox.settings.schedules import OTHERS, Validation, find_schedule
from tiltbox.stages.split import split
from tiltbox.training import worker
from tiltbox.training.config import runner_config
from tiltbox.training.failure import read_failure
from tiltbox.training.loop import _next
from tiltbox.training.resume import last_checkpoint

import_openmmlab()
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import HOOKS  # noqa: E402

# Two epochs of small mosaics, then one of whole images; Muon; averaged weights; a rate that falls; validation
# after the first epoch and the last.
SCHEDULE = find_schedule("small-cpu").model_copy(
    update={
        "batch": 2,
        "epochs": {OTHERS: 3},
        "image_size": 128,
        "early_scale": 0.5,
        "early_share": 0.6,
        "ema_warmup": 3,
        "warmup_steps": 3,
        "rotate": 0.5,
        "threads": 1,
        "validation": Validation(every=2, patches=2),
    }
)
STEPS = 6  # two in each epoch


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Four patches to learn from, two to validate on, all with objects."""
    folder = tmp_path_factory.mktemp("mini")
    render_mini(folder / "raw", images={"train": 4, "val": 2, "test": 0}, size=128)
    for name in ("train", "val"):
        split([folder / "raw" / name], folder / name, size=128, overlap=0, workers=1)
    return folder


@HOOKS.register_module()
class SignalAfter(Hook):
    """Sends a signal to this process after a step."""

    priority = "LOWEST"

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.step:
            os.kill(os.getpid(), self.number)


def train(patches: Path, work: Path, *hooks: dict, **changes: object) -> int:
    """The exit code of a training process that starts, or resumes."""
    work.mkdir(exist_ok=True)
    schedule = SCHEDULE.model_copy(update=changes)
    config = runner_config(
        find_variant("yoloms-xs-current"),
        schedule,
        patches / "train",
        work,
        DOTA_V1_CLASSES,
        cuda=False,
        validate=patches / "val",
    )
    config.custom_hooks.extend(hooks)
    last = last_checkpoint(work)
    config.update({"pretrained": None, "resume": last is not None, "load_from": last and str(last)})
    config.dump(work / "config.py")
    return worker.main(work / "config.py")


def history(work: Path) -> list[dict[str, str]]:
    with (work / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def require_equal(work: Path, undisturbed: Path) -> None:
    """The whole state at the end: weights, averages, optimiser and scores."""
    one, two = (torch.load(path / f"step_{STEPS}.pth", weights_only=False) for path in (work, undisturbed))
    assert differing(one, two) == []
    assert history(work) == history(undisturbed)
    best = [sorted(path.name for path in folder.glob("best_*")) for folder in (work, undisturbed)]
    assert best[0] == best[1]


def differing(one: object, two: object, at: str = "") -> list[str]:
    """Where two checkpoints differ, apart from times."""
    if at in ("/meta", "/message_hub") or "/seconds" in at:
        return []
    if isinstance(one, dict):
        keys = [at] if one.keys() != two.keys() else []
        return keys + [place for key in one for place in differing(one[key], two[key], f"{at}/{key}")]
    if isinstance(one, list):
        return [at] * (len(one) != len(two)) + differing(dict(enumerate(one)), dict(enumerate(two)), at)
    equal = torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    return [] if equal else [at]


def test_a_training_that_is_told_to_end_again_and_again(patches, tmp_path, monkeypatch):
    """After the first step of an epoch, and after its last, so before a validation; by all signals.

    The number of processes that load data differs each time.
    """
    work = tmp_path / "work"
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    for step, workers, number in zip((1, 2, 3, 5), (0, 1, 2, 0), numbers, strict=True):
        told = {"type": "SignalAfter", "step": step, "number": number}
        assert train(patches, work, told, workers=workers) == 128 + number
        said = str(read_failure(work / "config.py"))
        assert said.startswith(f"training: was told to end ({number.name}); its state is saved; start")
        assert last_checkpoint(work).name == f"step_{step}.pth"
    with monkeypatch.context() as patch:
        patch.setattr("tiltbox.training.validation.detect_patches", tell_and_wait)
        assert train(patches, work) == 128 + signal.SIGTERM
    assert last_checkpoint(work).name == f"step_{STEPS}.pth"
    assert train(patches, work) == 0

    assert train(patches, tmp_path / "undisturbed", workers=0) == 0
    require_equal(work, tmp_path / "undisturbed")
    saved = {path.name for path in (tmp_path / "undisturbed").glob("step_*")}
    assert saved == {"step_2.pth", "step_6.pth"}, "before each validation"
    assert [row["epoch"] for row in history(work) if row["val_AP50"]] == ["1", "3"]


def tell_and_wait(*args: object, **options: object) -> None:
    """A validation during which a signal comes."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    pytest.fail("it was not cut off")


@HOOKS.register_module()
class KillLoader(Hook):
    """Kills the process that loads data, after the fifth step."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == 5:
            (loader,) = multiprocessing.active_children()
            loader.kill()
            time.sleep(0.5)  # a handler of PyTorch's would raise an error here, where nothing can be saved


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), True),
        (RuntimeError("Pin memory thread exited unexpectedly"), True),  # on a GPU
        (EOFError(), True),
        (EOFError("Caught EOFError in DataLoader worker process 0.\nOriginal Traceback"), False),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"), False),
    ],
)
def test_a_batch_that_is_lost(error, lost):
    def batches():
        raise error
        yield

    if lost:
        assert _next(batches()) is None
    else:
        with pytest.raises(type(error), match="Caught"):
            _next(batches())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_patch_that_cannot_be_read(patches, tmp_path, workers):
    """Not a lost batch: the process that loads data says what is wrong, and where."""
    shutil.copytree(patches, tmp_path / "patches")
    for image in (tmp_path / "patches/train/images").iterdir():
        image.write_bytes(image.read_bytes()[:100])
    assert train(tmp_path / "patches", tmp_path / "work", workers=workers) == 1
    failure = read_failure(tmp_path / "work/config.py")
    assert isinstance(failure, DataError)
    assert Path(failure.where).parent == tmp_path / "patches/train/images"
    assert "PassedError" not in str(failure) and "Caught" not in str(failure)


def test_a_gpu_that_pytorch_cannot_use(patches, tmp_path, monkeypatch):
    """Its driver is too old, say: mmengine would train on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = runner_config(
        find_variant("yoloms-xs-current"), SCHEDULE, patches / "train", tmp_path, DOTA_V1_CLASSES, cuda=True
    )
    config.dump(tmp_path / "config.py")
    assert worker.main(tmp_path / "config.py") == 1
    assert re.match(r"--gpus: PyTorch .* cannot use the GPU", str(read_failure(tmp_path / "config.py")))


def test_a_killed_data_loading_process(patches, tmp_path):
    """The state is saved, too, and the message says what to do; the fourth step was saved for its time."""
    work, at_each_step = tmp_path / "work", {"checkpoint_minutes": 0, "workers": 1}
    assert train(patches, work, {"type": "KillLoader"}, **at_each_step) == 1
    said = str(read_failure(work / "config.py"))
    assert said.startswith("training: a data loading process was killed") and "use fewer workers" in said
    assert said.endswith("the same command resumes from step 5")
    assert {path.name for path in work.glob("step_*")} == {"step_4.pth", "step_5.pth"}
