"""Train one variant: patches in; checkpoint, resolved configuration and per-epoch history out."""

from __future__ import annotations

import csv
import ctypes
import json
import logging
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.config import Config

from tiltbox import __version__, tracking
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.errors import DataError, OutputError, SettingsError, TiltboxError
from tiltbox.files import require_writable, write_json, write_text
from tiltbox.model.checkpoint import read_checkpoint, save_checkpoint
from tiltbox.settings.base import fingerprint
from tiltbox.settings.schedules import Schedule
from tiltbox.settings.variants import Variant, load_variants
from tiltbox.training.config import runner_config
from tiltbox.training.devices import gpu_count, leased_gpus

log = logging.getLogger("tiltbox")
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def train(
    name: str,
    variant: Variant,
    schedule: Schedule,
    patches: Path,
    out: Path,
    *,
    classes: tuple[str, ...] = DOTA_V1_CLASSES,
    gpus: int | None = None,
    processes: int | None = None,
    start: str | None = None,
    resume: bool = True,
    track: str | None = None,
) -> Path:
    """Train ``variant`` on a folder of patches and return the path of the final checkpoint.

    ``out`` receives ``checkpoint.pth`` (averaged weights where the schedule averages), ``config.py``,
    ``history.csv`` and ``train.json``. Until then epoch checkpoints live in ``out/work``; a training that
    was killed goes on from the last of them if nothing it depends on has changed.

    Args:
        name: The variant's name, kept in the checkpoint.
        gpus: Processes, one GPU each; 0 trains on the CPU; None takes the schedule's number where there
            are as many GPUs, else the CPU.
        processes: Processes on the CPU, 1 by default.
        start: Weights to start from (file or address) instead of the variant's COCO weights.
        resume: Whether to go on from ``out/work``.
        track: MLflow experiment and run to log to, as ``experiment/run``; None logs nothing.

    Raises:
        DataError: The patches have no labels or no objects.
        SettingsError: More GPUs are asked for than there are.
        OutputError: ``out`` cannot be written, or another process is training there.
        CheckpointError: The weights to start from belong to another model.
    """
    manifest = _patch_manifest(patches)
    require_writable(out)
    gpus = _usable_gpus(gpus, schedule)
    schedule = schedule.model_copy(update={"processes": gpus or processes or 1})
    work = out / "work"
    with _only_trainer(out), leased_gpus(gpus):
        config = runner_config(variant, schedule, patches, work, classes, cuda=gpus > 0)
        config.pretrained = start or _pretrained(variant, schedule)
        config.fingerprint = fingerprint(_essence(config), manifest)
        config.resume = _can_resume(work, config.fingerprint, resume)
        config.tracking = track and tracking.begin_training(track, variant, schedule, config.fingerprint)
        _write_config(config, work)
        _launch(work / "config.py", schedule.processes)
        _publish(work, out, _facts(name, variant, schedule, config, gpus), classes)
    return out / "checkpoint.pth"


def _usable_gpus(asked: int | None, schedule: Schedule) -> int:
    available = gpu_count()
    if asked is None:
        return schedule.processes if available >= schedule.processes else 0
    if asked > available:
        raise SettingsError("--gpus", f"asks for {asked}, but this machine has {available}", "ask for fewer")
    return asked


def _patch_manifest(patches: Path) -> dict:
    path = patches / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(path, "there is no manifest", "cut the images with `tiltbox split` first") from None
    if not manifest["labelled"]:
        raise DataError(patches, "has no labels to learn from", "train on a split with labelTxt")
    if not manifest["objects_in_patches"]:
        raise DataError(patches, "holds no objects", "train on images with labelled objects")
    return manifest


def _pretrained(variant: Variant, schedule: Schedule) -> str | None:
    return load_variants().url(variant.pretrained) if schedule.pretrained else None


def _essence(config) -> dict:
    """What a training depends on: all but where it stores its state."""
    return {key: value for key, value in config.to_dict().items() if key != "work_dir"}


def _can_resume(work: Path, mark: str, wanted: bool) -> bool:
    """Whether ``work`` holds an unfinished training of just this configuration; else it is emptied."""
    before = work / "config.py"
    if wanted and before.exists() and Config.fromfile(before).fingerprint == mark:
        unfinished = (work / "last_checkpoint").exists()
        log.info(
            "%s", "resuming from the last epoch" if unfinished else "starting over: no epoch was finished"
        )
        return unfinished
    if work.exists():
        log.info("not resuming: %s", "the configuration changed" if wanted else "as asked")
        shutil.rmtree(work)
    return False


def _write_config(config, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / "config.py", config.pretty_text)


def _launch(config: Path, processes: int) -> None:
    if processes == 1:
        from tiltbox.training import worker

        worker.run(config)
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "tiltbox.training.worker", str(config)]
    done = subprocess.run(command, check=False, preexec_fn=_end_with_parent)
    if done.returncode:
        remedy = "see the messages above; started again, it resumes from the last epoch"
        raise TiltboxError(config, f"training ended with exit code {done.returncode}", remedy)


def _end_with_parent() -> None:
    """Have the kernel end torchrun, and it its workers, should this process be killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _facts(name: str, variant: Variant, schedule: Schedule, config, gpus: int) -> dict:
    """How the variant was trained, for the report."""
    import mmengine
    import torch

    return {
        "variant": name,
        "size": variant.size,
        "generation": variant.generation,
        "pretrained": config.pretrained,
        "augmentation": [*["flip"] * (schedule.flip > 0), *["RR"] * (schedule.rotate > 0)],
        "epochs": getattr(schedule.epochs, variant.size),
        "images_per_step": schedule.processes * schedule.batch,
        "processes": schedule.processes,
        "learning_rate": schedule.learning_rate,
        "image_size": schedule.image_size,
        "seed": schedule.seed,
        "device": torch.cuda.get_device_name() if gpus else "CPU",
        "config_hash": config.fingerprint,
        "git_commit": tracking.git_commit(),
        "versions": {"tiltbox": __version__, "torch": torch.__version__, "mmengine": mmengine.__version__},
    }


def _publish(work: Path, out: Path, facts: dict, classes: tuple[str, ...]) -> None:
    """Move the results out of the work folder and drop the rest: optimiser states, older epochs."""
    weights, _ = read_checkpoint((work / "last_checkpoint").read_text().strip())
    for name in ("history.csv", "config.py"):
        write_text(out / name, (work / name).read_text())
    with (work / "history.csv").open(newline="") as stream:
        epochs = list(csv.DictReader(stream))
    seconds = round(sum(float(epoch["seconds"]) for epoch in epochs), 1)  # over resumes, too
    write_json(out / "train.json", facts | {"steps": int(epochs[-1]["step"]), "seconds": seconds})
    save_checkpoint(out / "checkpoint.pth", weights, {"variant": facts["variant"], "classes": list(classes)})
    shutil.rmtree(work)


@contextmanager
def _only_trainer(out: Path):
    lock = FileLock(out / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        problem = "another process is training here"
        raise OutputError(
            out, problem, "wait for it, or end it (it may have outlived its workflow)"
        ) from None
    try:
        yield
    finally:
        lock.release()
