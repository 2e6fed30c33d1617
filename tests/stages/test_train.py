"""Training as a stage: outputs, resuming, starting weights, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

from tiltbox import tracking
from tiltbox.__main__ import main
from tiltbox.devices.leases import leased_gpus
from tiltbox.errors import (
    CheckpointError,
    DataError,
    EndedError,
    OutputError,
    SettingsError,
    TiltboxError,
    TrainingError,
)
from tiltbox.mini import render_mini
from tiltbox.model import build_detector
from tiltbox.model.checkpoint import load_exactly, read_checkpoint, save_checkpoint
from tiltbox.model.variants import find_variant, load_variants
from tiltbox.settings.schedules import Schedule, find_schedule
from tiltbox.stages.split import split
from tiltbox.stages.train import _launch, median_object_side, train
from tiltbox.tracking import catching_up, following
from tiltbox.training.config import read_config
from tiltbox.training.failure import ATTEMPT, require_hope, write_failure
from tiltbox.training.tasks import task_here

NAME = "yoloms-xs-current"
VARIANT = find_variant(NAME)
SMOKE = find_schedule("smoke")
REPEATABLE = SMOKE.model_copy(
    update={"threads": 1, "workers": 2}
)  # its weights depend on the processor alone
pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    render_mini(folder / "raw", images={"train": 1, "val": 0, "test": 1})
    for name in ("train", "test"):
        split([folder / "raw" / name], folder / name, size=128, overlap=24, workers=1)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """In a process of its own, since this comes before ``in_this_process``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        train(NAME, VARIANT, REPEATABLE, folder / "train", folder / "out", gpus=0)
    return folder / "out"


def rows(path: Path) -> list[dict]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_outputs(trained):
    assert {path.name for path in trained.iterdir()} - {".training.lock"} == {
        "checkpoint.pth",
        "config.py",
        "history.csv",
        "provenance.json",
        "train.json",
    }
    (row,) = rows(trained / "history.csv")
    assert (row["epoch"], row["step"]) == ("1", "2")
    assert float(row["loss"]) == pytest.approx(float(row["loss_cls"]) + float(row["loss_bbox"]), abs=1e-5)
    facts = json.loads((trained / "train.json").read_text())
    assert (facts["variant"], facts["steps"], facts["images_per_step"], facts["device"]) == (
        NAME,
        2,
        2,
        "CPU",
    )


def test_the_configuration_is_that_of_any_run(trained):
    """Not of this one: whether it was resumed."""
    config = read_config(trained / "config.py")
    assert (config.resume, config.load_from) == (False, None)
    assert config.optim_wrapper.optimizer.lr == SMOKE.learning_rate


def test_the_checkpoint_fits_and_says_what_it_is_of(trained):
    model = build_detector(NAME)
    load_exactly(model, trained / "checkpoint.pth", NAME)
    _, meta = read_checkpoint(trained / "checkpoint.pth")
    assert (meta["variant"], len(meta["classes"]), meta["image_size"]) == (NAME, 15, 128)


def test_the_facts_say_what_was_trained_on(folder, trained):
    data = json.loads((trained / "train.json").read_text())["data"]
    objects = [len(path.read_text().splitlines()) for path in (folder / "train/annfiles").iterdir()]
    assert (data["patch_size"], data["overlap"], data["rates"]) == (128, 24, [1.0])
    assert (data["images"], data["classes"]) == (1, 15)
    assert (data["patches"], data["objects"]) == (sum(count > 0 for count in objects), sum(objects))


def test_a_schedule_that_fits_the_patches(folder, tmp_path, monkeypatch, caplog):
    """The choice is logged, written into the facts, and followed."""
    monkeypatch.setattr("tiltbox.settings.auto.EPOCHS", {"small-cpu": (1, 1)})
    with caplog.at_level("INFO", logger="tiltbox"):
        train(NAME, VARIANT, None, folder / "train", tmp_path / "out", gpus=0)
    facts = json.loads((tmp_path / "out/train.json").read_text())
    line = facts["schedule_choice"]
    assert line.startswith("schedule auto: small-cpu, 1 epoch at 128 px, for ") and line in caplog.text
    assert (facts["epochs"], facts["image_size"], facts["augmentation"]) == (1, 128, ["flip", "mosaic"])
    config = read_config(tmp_path / "out/config.py")
    assert config.optim_wrapper.optimizer.type == "MuonAdamW"
    assert config.model.train_cfg.assigner.type == "TaskAligned"


def test_a_schedule_that_was_set_was_not_chosen(trained):
    assert json.loads((trained / "train.json").read_text())["schedule_choice"] is None


def test_the_size_of_objects(tmp_path):
    """The median over all patches of the root of the area."""
    (tmp_path / "annfiles").mkdir()
    assert median_object_side(tmp_path, ("ship",)) == 0
    (tmp_path / "annfiles/a.txt").write_text("0 0 10 0 10 10 0 10 ship 0\n0 0 50 0 50 2 0 2 ship 0\n")
    (tmp_path / "annfiles/b.txt").write_text("0 0 0 90 90 90 90 0 ship 2\n")
    assert median_object_side(tmp_path, ("ship",)) == 10


def test_the_cpu_computes_with_channels_last(trained):
    weights, _ = read_checkpoint(trained / "checkpoint.pth")
    kernel = weights["backbone.stem.0.conv.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()


@pytest.mark.parametrize(("background", "said"), [(False, True), (True, False)])
def test_patches_without_objects_are_spoken_of(folder, tmp_path, monkeypatch, caplog, background, said):
    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    caplog.set_level("INFO", "tiltbox")
    patches = shutil.copytree(folder / "train", tmp_path / "patches")
    manifest = json.loads((patches / "manifest.json").read_text())
    (patches / "manifest.json").write_text(json.dumps(manifest | {"patches": 6, "empty_patches": 5}))
    with pytest.raises(Cut):
        schedule = SMOKE.model_copy(update={"background": background})
        train(NAME, VARIANT, schedule, patches, tmp_path / "out", gpus=0)
    assert any("5 of 6 patches contain no objects" in message for message in caplog.messages) == said


@pytest.mark.own_processes
def test_another_kind_of_processor_gives_other_bits(folder, trained, tmp_path, monkeypatch):
    """PyTorch computes as on an older processor if told to: the same bits each time, but different from ours.

    After two steps the difference is still one of rounding.
    """
    if "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("needs a processor with newer instructions than the oldest that PyTorch knows")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        train(NAME, VARIANT, REPEATABLE, folder / "train", place, gpus=0)
    ours, theirs, again = (read_checkpoint(place / "checkpoint.pth")[0] for place in (trained, *places))
    assert all(torch.equal(theirs[key], again[key]) for key in theirs)
    differing = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert differing
    for key in differing:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0.1, atol=1e-2)


def test_a_seed_in_place_of_the_schedules(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    marks = {}
    for seed in (None, 0, 4):
        with pytest.raises(Cut):
            train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / str(seed), gpus=0, seed=seed)
        config = read_config(tmp_path / str(seed) / "work/config.py")
        marks[seed] = (config.randomness.seed, config.fingerprint)
    assert marks[None] == marks[0] and marks[4][0] == 4 and marks[4][1] != marks[0][1]


def test_a_training_that_diverges_ends_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = SMOKE.model_copy(update={"base_lr": 1e6, "max_steps": 20, "threads": 1})
    with pytest.raises(TrainingError, match=r"step \d+ of 20, epoch \d+: the loss is .*; lower base_lr"):
        train(NAME, VARIANT, schedule, folder / "train", Path("out"), gpus=0, track="mini/diverges")
    assert not Path("out/checkpoint.pth").exists() and not list(Path("out/work").glob("*.pth"))
    (run,) = tracking.client().search_runs(["1"])
    assert run.info.status == "FAILED"
    assert "so the training diverged; lower base_lr" in run.data.tags["failure"]

    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    monkeypatch.setenv(ATTEMPT, "2")
    with pytest.raises(TrainingError, match=r"step \d+ of 20, epoch \d+: the loss is"):
        train(NAME, VARIANT, schedule, folder / "train", Path("out"), gpus=0)
    lower = schedule.model_copy(update={"base_lr": 1e-3})
    with pytest.raises(Cut):
        train(NAME, VARIANT, lower, folder / "train", Path("out"), gpus=0)


def test_an_earlier_failure_is_not_that_of_a_killed_training(tmp_path, monkeypatch):
    monkeypatch.setattr("tiltbox.stages.train.run_program", lambda *_: -signal.SIGKILL)
    config = tmp_path / "config.py"
    write_failure(config, TrainingError("step 7", "the loss is nan", "lower base_lr"))
    with pytest.raises(TiltboxError, match="training ended with exit code -9; see the messages above"):
        _launch(config, task_here(), None, 1, on_cpu=True)


ENDED = EndedError("training", "was told to end (SIGTERM)", "resume")
LOST = EndedError("training", "a data loading process was killed", "resume")
LACK = "training: memory ran out: the system killed a process"


@pytest.mark.parametrize(
    ("code", "processes", "failure", "says"),
    [
        (-9, 1, None, LACK),
        (1, 1, LOST, LACK),
        (1, 2, None, LACK),
        (1, 2, ENDED, LACK),  # by torchrun, since another process was killed
        (1, 1, None, "training ended with exit code 1"),  # a crash: what was killed was something else
        (128 + 15, 1, ENDED, "told to end"),  # likewise
        (1, 2, TrainingError("step 7", "the loss is nan", "lower base_lr"), "step 7: the loss is nan"),
    ],
)
def test_a_process_that_the_system_killed_explains_the_end(
    tmp_path, monkeypatch, code, processes, failure, says
):
    """Torchrun tells its other processes to end, which must not hide why. A repetition would end likewise."""
    counts = iter((3, 4))
    monkeypatch.setattr("tiltbox.stages.train.killed_for_memory", lambda: next(counts))
    config = tmp_path / "config.py"

    def program(*_):
        if failure:
            write_failure(config, failure)
        return code

    monkeypatch.setattr("tiltbox.stages.train.run_program", program)
    with pytest.raises(TiltboxError, match=says):
        _launch(config, task_here(), None, processes, on_cpu=True)
    monkeypatch.setenv(ATTEMPT, "2")
    if says is LACK:
        with pytest.raises(TrainingError, match=says):
            require_hope(config)


@pytest.mark.own_processes
def test_the_same_schedule_gives_the_same_weights(folder, trained, tmp_path, monkeypatch):
    """To the last bit, whatever threads there are, and wherever images are read and augmented."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # 1 before
    schedule = REPEATABLE.model_copy(update={"workers": 0})  # 2 before
    train(NAME, VARIANT, schedule, folder / "train", tmp_path, gpus=0)
    one, two = (read_checkpoint(place / "checkpoint.pth")[0] for place in (trained, tmp_path))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "5"), (2, "5,7")])
def test_the_training_process_sees_its_leased_gpus_alone(folder, tmp_path, monkeypatch, gpus, seen):
    """With fake GPUs, the first of which is taken, in its environment before it begins."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    visible = []

    def program(command, environment):
        visible.append((os.environ["CUDA_VISIBLE_DEVICES"], "torch.distributed.run" in command))
        return 9

    monkeypatch.setattr("tiltbox.stages.train.run_program", program)
    with leased_gpus(1), pytest.raises(TiltboxError, match="ended with exit code 9"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=gpus)
        if gpus:
            with pytest.raises(SettingsError, match="--processes: is for the CPU"):
                train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=gpus, processes=2)
    assert visible == [(seen, gpus > 1)]


def test_a_missing_patch_is_named(folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "train")
    patch = min((tmp_path / "train/images").iterdir())
    patch.unlink()
    with pytest.raises(DataError, match=rf"{patch.name}: patch not found"):
        train(NAME, VARIANT, SMOKE, tmp_path / "train", tmp_path / "out", gpus=0, processes=2)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_file_that_is_not_a_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: is not the manifest of a split"):
        train(NAME, VARIANT, SMOKE, tmp_path, tmp_path / "out", gpus=0)


def test_starting_weights_are_used(folder, tmp_path):
    weights = build_detector(NAME, num_classes=80).state_dict()
    save_checkpoint(tmp_path / "coco.pth", weights, {})
    still = SMOKE.model_copy(update={"base_lr": 1e-12, "max_steps": 1, "ema_momentum": None})
    train(NAME, VARIANT, still, folder / "train", tmp_path / "out", gpus=0, start=str(tmp_path / "coco.pth"))
    found, _ = read_checkpoint(tmp_path / "out/checkpoint.pth")
    key = "backbone.stem.0.conv.weight"
    torch.testing.assert_close(found[key], weights[key])


def test_starting_weights_of_another_model(folder, tmp_path):
    save_checkpoint(tmp_path / "s.pth", build_detector("yoloms-s-current").state_dict(), {})
    with pytest.raises(CheckpointError, match="is of another model"):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=0, start=str(tmp_path / "s.pth"))


def long_schedule(folder: Path) -> Path:
    """It lasts until it is ended."""
    path = folder / "schedule.yaml"
    path.write_text(yaml.safe_dump(by_epochs(1000, threads=1).model_dump(mode="json")))
    return path


class Cut(Exception):
    """The exception that cuts off a training."""


def cut(*args: object, **options: object) -> None:
    raise Cut


def by_epochs(count: int, **changes: object) -> Schedule:
    epochs = dict.fromkeys(("xs", "s", "l"), count)
    return Schedule.model_validate(SMOKE.model_dump() | {"max_steps": None, "epochs": epochs} | changes)


def test_another_configuration_starts_over(folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("tiltbox.stages.train.publish", cut)
        train(NAME, VARIANT, by_epochs(1), folder / "train", tmp_path, gpus=0)
    other = SMOKE.model_copy(update={"seed": 7})
    train(NAME, VARIANT, other, folder / "train", tmp_path, gpus=0)
    assert [row["step"] for row in rows(tmp_path / "history.csv")] == ["2"]
    (kept,) = tmp_path.glob("work.*")
    assert rows(kept / "history.csv")[0]["epoch"] == "1"


def test_it_resumes_with_other_workers_and_in_another_place(folder, tmp_path, caplog):
    """Fewer workers are the remedy if memory ran out, so nothing must be lost because of them."""
    caplog.set_level("INFO", "tiltbox")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("tiltbox.stages.train.publish", cut)
        train(NAME, VARIANT, by_epochs(1), folder / "train", tmp_path / "before", gpus=0)
    (checkpoint,) = (tmp_path / "before/work").glob("step_*.pth")
    state = torch.load(checkpoint, weights_only=False)
    assert all(group["fused"] for group in state["optimizer"]["param_groups"])
    shutil.copytree(folder / "train", tmp_path / "patches")
    out = (tmp_path / "before").rename(tmp_path / "after")
    train(NAME, VARIANT, by_epochs(1, workers=1), tmp_path / "patches", out, gpus=0)
    assert any(line.startswith("resuming from step ") for line in caplog.messages)
    assert [row["epoch"] for row in rows(out / "history.csv")] == ["1"]


def test_mlflow_knows_every_epoch_whatever_happens(folder, tmp_path, monkeypatch, caplog):
    """MLflow accepts nothing before the end of the training, and then everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(following, "LOOK_EVERY", 0.1)
    caplog.set_level("INFO", "tiltbox")
    log_progress, calls = catching_up.log_progress, []

    def fail_at_first(*where: object) -> None:
        calls.append(where)
        if len(calls) == 1:
            raise OSError("no answer")
        log_progress(*where)

    monkeypatch.setattr(catching_up, "log_progress", fail_at_first)
    train(NAME, VARIANT, by_epochs(2), folder / "train", tmp_path / "out", gpus=0, track="mini/run")
    mlflow = tracking.client()
    (run,) = mlflow.search_runs([tracking.prepare("mini")])
    assert [
        each.message for each in caplog.records if "MLflow" in each.message and each.name == "tiltbox"
    ] == [
        "MLflow does not answer and will be updated later; the training continues: no answer",
        "MLflow answers again",
    ]
    assert [point.step for point in mlflow.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]
    assert run.info.status == "FINISHED" and run.info.end_time - run.info.start_time > 1000
    assert run.data.params["data.patch_size"] == "128" and run.data.params["pretrained"] == "none"
    assert run.data.metrics["params_M"] == pytest.approx(5.088, abs=1e-3)
    assert run.data.metrics["system/cpu_utilization_percentage"] >= 0
    model = mlflow.get_logged_model(run.outputs.model_outputs[0].model_id)
    checkpoint = tmp_path / "mlartifacts/mini/models" / model.model_id / "artifacts/data/checkpoint.pth"
    assert checkpoint.samefile(tmp_path / "out/checkpoint.pth")  # not stored twice

    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    with pytest.raises(Cut):
        train(NAME, VARIANT, by_epochs(2), folder / "train", tmp_path / "out", gpus=0, track="mini/run")
    runs = mlflow.search_runs([tracking.prepare("mini")])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(("processes", "beyond", "warned"), [(1, 0, True), (1, -1, False), (2, 0, True)])
def test_a_warm_up_as_long_as_the_training(folder, tmp_path, monkeypatch, caplog, processes, beyond, warned):
    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    patches = sum(path.stat().st_size > 0 for path in (folder / "train/annfiles").iterdir())
    steps = 3 * -(-patches // (2 * processes))
    # Twice as many images a step halve the warm-up.
    schedule = by_epochs(3, warmup_steps=processes * (steps + beyond))
    with pytest.raises(Cut):
        train(NAME, VARIANT, schedule, folder / "train", tmp_path, gpus=0, processes=processes)
    line = f"schedule: warmup_steps: {steps} is not less than the {steps} steps of this training"
    assert [message.startswith(line) for message in caplog.messages] == [True] * warned


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_worker_processes_save_and_end_with_the_training(folder, tmp_path, by):
    arguments = ["train", NAME, "--patches", folder / "train", "--out", tmp_path / "out", "--gpus", 0]
    arguments += ["--schedule", long_schedule(tmp_path), "--processes", 2]
    parent = subprocess.Popen(
        [sys.executable, "-m", "tiltbox", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    assert any("step 1 of" in line for line in parent.stderr)  # torchrun and its two workers are there
    mark = str(tmp_path / "out/work/config.py")
    assert len(processes_of(mark)) == 3
    parent.send_signal(by)
    parent.wait()
    until = time.monotonic() + 60
    while processes_of(mark):
        assert time.monotonic() < until, "orphans train on"
        time.sleep(0.1)
    parent.stderr.close()
    (checkpoint,) = (tmp_path / "out/work").glob("step_*.pth")
    assert zipfile.ZipFile(checkpoint).testzip() is None


def processes_of(mark: str) -> list[str]:
    """The command lines of running processes that name ``mark``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if mark in line]


def test_only_one_training_at_a_time(folder, tmp_path):
    with (
        FileLock(tmp_path / ".training.lock"),
        pytest.raises(OutputError, match="another process is training here"),
    ):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path, gpus=0)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("wrong", [{"track": "typo"}, {"start": "http://127.0.0.1:9/none.pth"}])
def test_nothing_is_dropped_before_a_training_can_begin(folder, tmp_path, wrong, resume):
    work = tmp_path / "work"
    work.mkdir()
    (work / "config.py").write_text("fingerprint = '0123456789ab'")
    (work / "step_30.pth").touch()
    with pytest.raises((SettingsError, CheckpointError)):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path, gpus=0, resume=resume, **wrong)
    assert (work / "step_30.pth").exists()


@pytest.fixture
def offline(monkeypatch, tmp_path, closed) -> Schedule:
    """A schedule that starts from weights without a local copy and with an unreachable address."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    table = load_variants().model_copy(update={"weights": closed})
    monkeypatch.setattr("tiltbox.settings.schedules.load_variants", lambda: table)
    return by_epochs(1, pretrained=True)


def test_the_command_without_a_network(folder, tmp_path, monkeypatch, capsys, offline):
    """It ends with one line, before it waits for a GPU or starts a process."""
    monkeypatch.setattr("tiltbox.stages.train.leased_gpus", cut)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(offline.model_dump(mode="json")))
    command = f"train {NAME} --patches {folder / 'train'} --out {tmp_path / 'out'} --gpus 0"
    assert main([*command.split(), "--schedule", str(tmp_path / "s.yaml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(
        rf"tiltbox train: http://\S+/{VARIANT.pretrained}: cannot be reached \(Connection ref", line
    )
    remedies = (f"put it at {tmp_path / 'cache'}", "--start FILE", "--schedule small-gpu")
    assert all(remedy in line for remedy in remedies)
    assert not (tmp_path / "out/work").exists()


def test_a_damaged_file_to_start_from_is_noticed_at_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tiltbox.stages.train.leased_gpus", cut)
    (tmp_path / "a.pth").write_bytes(b"<html>Sign in</html>")
    with pytest.raises(CheckpointError, match=r"a\.pth: is not a readable checkpoint \(it is a web page\)"):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "o", gpus=0, start=str(tmp_path / "a.pth"))


def test_random_weights_whatever_the_schedule_says(folder, tmp_path, offline, caplog):
    """They are recorded, and the training is the same as with a schedule for random weights."""
    caplog.set_level("INFO", "tiltbox")
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr("tiltbox.stages.train.publish", cut)
        train(NAME, VARIANT, offline, folder / "train", out, gpus=0, start="random")
    bare = offline.model_copy(update={"pretrained": False})
    train(NAME, VARIANT, bare, folder / "train", out, gpus=0)
    assert any(line.startswith("resuming from step ") for line in caplog.messages)
    assert json.loads((out / "train.json").read_text())["pretrained"] is None
    assert read_config(out / "config.py").pretrained is None


def test_random_weights_are_another_training_than_those_of_coco(folder, tmp_path, offline, monkeypatch):
    """Neither resumes the other; resuming needs no weights to start from."""
    monkeypatch.setattr("tiltbox.stages.train._launch", cut)
    marks = {}
    for start in ("random", "http://127.0.0.1:9/coco.pth"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
            patch.setattr("tiltbox.stages.train.require_weights", lambda *_: None)
            train(NAME, VARIANT, offline, folder / "train", tmp_path / start[:4], gpus=0, start=start)
        marks[start] = read_config(tmp_path / start[:4] / "work/config.py")
    random, coco = marks.values()
    assert (random.pretrained, coco.pretrained) == (None, "http://127.0.0.1:9/coco.pth")
    assert random.fingerprint != coco.fingerprint
    work = tmp_path / "http/work"
    torch.save({}, work / "step_1.pth")
    with pytest.raises(Cut):
        train(NAME, VARIANT, offline, folder / "train", tmp_path / "http", gpus=0, start=coco.pretrained)
    assert read_config(work / "config.py").resume


def test_patches_that_contain_none_of_the_objects(tmp_path):
    (tmp_path / "images").mkdir(), (tmp_path / "labelTxt").mkdir()
    cv2.imwrite(str(tmp_path / "images/P1.png"), np.zeros((300, 300, 3), np.uint8))
    (tmp_path / "labelTxt/P1.txt").write_text("10 10 290 10 290 290 10 290 ship 0\n")
    split([tmp_path], tmp_path / "patches", size=128, overlap=24, workers=1)
    message = r"contains no objects, though its images have 1 \(left_out\.csv says why\); cut larger patches"
    with pytest.raises(DataError, match=message):
        train(NAME, VARIANT, SMOKE, tmp_path / "patches", tmp_path / "out", gpus=0)


def test_an_old_manifest_does_not_count(folder, tmp_path):
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches/manifest.json").write_text('{"labelled": true, "objects_in_patches": 3}')
    with pytest.raises(DataError, match="is not the manifest of a split"):
        train(NAME, VARIANT, SMOKE, tmp_path / "patches", tmp_path / "out", gpus=0)


def test_a_folder_of_the_users_that_is_called_work(folder, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").touch()
    with pytest.raises(OutputError, match="contains 'work', which 'tiltbox train' did not write"):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path, gpus=0)
    assert (tmp_path / "work/thesis.txt").exists()


def test_files_of_somebody_else_stay(folder, tmp_path):
    (tmp_path / "config.py").write_text("precious = 1")
    with pytest.raises(OutputError, match=r"contains 'config.py', which 'tiltbox train' did not write"):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path, gpus=0)
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
    assert (tmp_path / "config.py").read_text() == "precious = 1"


@pytest.mark.parametrize(
    ("patches", "message"),
    [("none", "file not found; cut the images"), ("test", "has no labels to learn from")],
)
def test_unusable_patches(folder, tmp_path, patches, message):
    with pytest.raises(DataError, match=message):
        train(NAME, VARIANT, SMOKE, folder / patches, tmp_path / "out", gpus=0)


def test_more_gpus_than_there_are(folder, tmp_path):
    with pytest.raises(SettingsError, match=r"--gpus: asks for 99, but this machine has \d+; choose"):
        train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=99)


@pytest.mark.own_processes
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(folder, tmp_path):
    train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=1)
    assert json.loads((tmp_path / "out/train.json").read_text())["device"] == torch.cuda.get_device_name()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_two_gpus(folder, tmp_path):
    train(NAME, VARIANT, SMOKE, folder / "train", tmp_path / "out", gpus=2)
    assert json.loads((tmp_path / "out/train.json").read_text())["processes"] == 2


def test_no_space_for_the_checkpoints(folder, tmp_path, monkeypatch):
    """It is noticed before the first step."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(OutputError, match=r"/work: needs at least \d+\.\d MiB, but only 1\.0 MiB are free"):
        train(NAME, VARIANT, by_epochs(1), folder / "train", tmp_path / "out", gpus=0)
    assert list((tmp_path / "out").rglob("*.pth")) == []
