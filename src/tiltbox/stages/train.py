"""Train one variant: patches in; checkpoint, resolved configuration and per-epoch history out."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from tiltbox import __version__, tracking
from tiltbox.configs import fingerprint
from tiltbox.devices.leases import gpu_count, gpu_name, leased_gpus
from tiltbox.devices.memory import allowed_memory, killed_for_memory
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.labels import list_labels, read_labels
from tiltbox.errors import (
    DataError,
    EndedError,
    OutputError,
    SettingsError,
    TiltboxError,
    TrainingError,
)
from tiltbox.files.atomic import WAIT_FOR_IT, acquired, require_writable, write_text
from tiltbox.layout import LEFT_OUT, TRAINING_LOCK
from tiltbox.model.checkpoint import copy_at_hand, is_address
from tiltbox.model.variant import Variant
from tiltbox.processes import run_program
from tiltbox.provenance import SUFFIX, Begun, file_hash
from tiltbox.records import PatchManifest, read_record
from tiltbox.settings import dependencies
from tiltbox.settings.auto import TrainingData, choose, fitting_gpus
from tiltbox.settings.schedules import Schedule, gpus_to_use, starting_weights
from tiltbox.stages.weights import require_weights
from tiltbox.training.best import forget_scores
from tiltbox.training.config import runner_config
from tiltbox.training.failure import forget_failure, read_failure, require_hope, write_failure
from tiltbox.training.kept_pixels import keep_pixels
from tiltbox.training.results import BEST, CHECKPOINT, LAST, publish
from tiltbox.training.resume import (
    can_resume,
    fingerprint_of,
    last_checkpoint,
    prepare_work,
    require_no_writer,
    validates_otherwise,
)
from tiltbox.training.tasks import Meeting, Task, awaited, leading, task_here, torchrun
from tiltbox.training.validation_patches import images_held_out, patches_to_validate, without

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger("tiltbox")

DATA = ("overlap", "rates", "iof", "images", "contents")  # keys of the manifest, for the report
# By default glibc returns large blocks at once, and the system clears them when they are needed again, which
# is most of the system time of a step on a CPU. Older versions accept at most 32 MiB for the first value.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
# In each of several processes PyTorch's C++ part warns of a setting that is as it has to be.
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
# Without it, CUDA's matrix products are not deterministic, and PyTorch refuses them if they must be.
REPEATABLE_PRODUCTS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
FINISHED = "work.finished"  # the work folder while it is removed
RANDOM = "random"  # in place of weights to start from


def train(
    name: str,
    variant: Variant,
    schedule: Schedule | None,
    patches: Path,
    out: Path,
    *,
    classes: tuple[str, ...] = DOTA_V1_CLASSES,
    gpus: int | None = None,
    processes: int | None = None,
    start: str | None = None,
    seed: int | None = None,
    resume: bool = True,
    track: str | None = None,
    validate: Path | None = None,
) -> Path:
    """Train ``variant`` on a folder of patches and return the path of the final checkpoint.

    ``out`` receives ``checkpoint.pth`` (averaged weights where the schedule averages), ``config.py``,
    ``history.csv`` and ``train.json``; if it was validated, also the weights of the epoch with the best AP50
    as ``best.pth``, unless that is the last epoch. Until then checkpoints are in ``out/work``; a killed
    training resumes from the last of them if nothing that it depends on has changed, and is kept as
    ``out/work.<hash>`` otherwise.

    The tasks of a SLURM step train together: the first does all of the above, the others add their GPUs or
    processes and return the same path.

    Args:
        name: The variant's name, kept in the checkpoint.
        schedule: How to train; None chooses by the patches and the GPUs (:mod:`tiltbox.settings.auto`).
        gpus: Processes, one GPU each; 0 trains on the CPU; None takes the schedule's number, or the CPU if
            there is no GPU. Several tasks share them, and by default use all that they have.
        processes: Processes on the CPU; by default 1, or 1 for each of several tasks, which share them.
        start: Weights to start from (file or address) instead of the variant's COCO weights, or ``random``
            for random weights, whatever the schedule says.
        seed: Seed to use instead of the schedule's.
        resume: Whether to resume from ``out/work``; if not, it is deleted with all that was kept beside it.
        track: MLflow experiment and run to log to, as ``experiment/run``; None logs nothing.
        validate: Labelled patches to score the detector on while it learns, as often as the schedule says;
            None for none, or for those of the images that the schedule holds out.

    Raises:
        DataError: The patches have no labels or no objects.
        SettingsError: There are some GPUs, but fewer than wanted; or the schedule holds out images, and
            ``validate`` is given, too.
        OutputError: ``out`` cannot be written, contains other files, or another process is training there.
        CheckpointError: The weights to start from cannot be downloaded or read, or belong to another model.
    """
    task = task_here()
    if task.number:
        _help(task, out)
        return out / CHECKPOINT
    with leading(task, out) as tell:
        begun = Begun("train")
        manifest = _patch_manifest(patches)
        require_writable(out)
        _require_own(out)
        choice = None
        if schedule is None:
            schedule, choice = _chosen(patches, manifest, classes, gpus, processes, task)
            log.info(choice)
        gpus = _usable_gpus(gpus, schedule, task)
        if gpus and processes:
            raise SettingsError("--processes", "is for the CPU", "leave it out, or add --gpus 0")
        processes = processes or task.total
        own = task.share(gpus, "--gpus") or task.share(processes, "--processes")
        schedule = _on_processes(schedule, gpus, processes)
        schedule = schedule.model_copy(update={"seed": schedule.seed if seed is None else seed})
        held_out = _held_out(schedule, patches, validate)
        manifest = without(manifest, patches, held_out, classes)
        _say_what_is_left_out(schedule, manifest)
        _warn_of_warmup(schedule, _steps(schedule, variant, manifest))
        if track is not None:
            tracking.require_target(track)
            tracking.require_experiment(track)
        work = out / "work"
        with _only_trainer(out):
            config = runner_config(
                variant, schedule, patches, work, classes, cuda=gpus > 0, held_out=held_out, validate=validate
            )
            config.pretrained = _start(start, schedule, variant)
            config.fingerprint = fingerprint(
                *dependencies.training(variant, classes, [schedule], config.pretrained),
                manifest.model_dump(mode="json"),
            )
            if resume and fingerprint_of(work) == config.fingerprint:
                require_hope(work / "config.py")
            if config.pretrained and not (resume and can_resume(work, config.fingerprint)):
                # Before anything is deleted and before waiting for a GPU; and once, not in every process.
                require_weights(config.pretrained, "give a file with --start FILE")
            begun.reads(patches / "manifest.json")
            weights = copy_at_hand(config.pretrained) if config.pretrained else None
            if weights:  # a resumed training needs none
                source = config.pretrained if is_address(config.pretrained) else weights
                begun.knows({source: file_hash(weights)})
            shutil.rmtree(out / FINISHED, ignore_errors=True)
            keep_pixels(patches)
            with leased_gpus(own if gpus else 0):
                require_no_writer(work)
                config.resume = prepare_work(work, config.fingerprint, resume)
                config.load_from = str(last_checkpoint(work)) if config.resume else None
                if config.resume and validates_otherwise(work, config):
                    forget_scores(work)
                facts = _facts(name, variant, schedule, config, gpus)
                facts |= {"schedule_choice": choice, "data": _data(schedule, manifest, classes)}
                with tracking.followed(out, work, track, variant, schedule, facts, resumes=config.resume):
                    _write_config(config, work)
                    meeting = tell(own, gpus > 0)
                    _launch(work / "config.py", task, meeting, own, on_cpu=gpus == 0)
                    _record(begun, out, publish(work, out, facts, classes), schedule, variant, facts)
                    os.replace(work, out / FINISHED)  # a half-removed folder must not be resumed
                    # Other tasks may take a moment longer to close what they have open there.
                    shutil.rmtree(out / FINISHED, ignore_errors=task.total > 1)
    return out / CHECKPOINT


def _help(task: Task, out: Path) -> None:
    """What the tasks after the first do."""
    meeting = awaited(task, out)
    if meeting.gpus and (here := gpu_count()) < meeting.processes:
        problem = f"task {task.number} has {here} on {socket.gethostname()}, but needs {meeting.processes}"
        raise SettingsError("--gpus", problem, "give each task as many: srun --gpus-per-task")
    with leased_gpus(meeting.processes if meeting.gpus else 0):
        _launch(out / "work/config.py", task, meeting, meeting.processes, on_cpu=not meeting.gpus)


def _require_own(out: Path) -> None:
    """Refuse a folder with files of these names that no training wrote."""
    known = (out / TRAINING_LOCK).exists() or (out / "train.json").exists()
    ours = known or fingerprint_of(out / "work") is not None
    for name in (CHECKPOINT, BEST, LAST, "config.py", "history.csv", "work"):
        if (out / name).exists() and not ours:
            problem = f"contains '{name}', which 'tiltbox train' did not write"
            raise OutputError(out, problem, "choose another folder with --out, or remove it")


def _chosen(
    patches: Path,
    manifest: PatchManifest,
    classes: tuple[str, ...],
    gpus: int | None,
    processes: int | None,
    task: Task,
) -> tuple[Schedule, str]:
    """The schedule that fits the patches, and a line about it."""
    full = manifest.patches - manifest.empty_patches
    if gpus is None:
        gpus = task.total * gpu_count() if task.total > 1 else fitting_gpus(full, gpu_count())
    side = median_object_side(patches, classes)
    data = TrainingData(full, manifest.objects_in_patches, manifest.size, side)
    return choose(data, gpus, processes or task.total)


def _start(start: str | None, schedule: Schedule, variant: Variant) -> str | None:
    """The file or address of the weights to start from; None for random ones."""
    return None if start == RANDOM else start or starting_weights(schedule, variant)


def _usable_gpus(asked: int | None, schedule: Schedule, task: Task) -> int:
    """Those of all tasks."""
    here = task.total * gpu_count()
    if asked is None and task.total > 1:
        asked = here
    gpus = gpus_to_use(schedule, asked, here, option="--gpus ")
    if gpus == 0:
        log.info("training on the CPU")
    return gpus


def _on_processes(schedule: Schedule, gpus: int, processes: int) -> Schedule:
    """The schedule for this number of GPUs or processes, with a line about it if that is not its own."""
    found = schedule.on(gpus or processes, cuda=gpus > 0)
    if found.processes != schedule.processes:
        log.info(
            "the schedule is for %d x %d images a step; here it is %d x %d, so %s",
            *(schedule.processes, schedule.batch, found.processes, found.batch),
            "the recipe stays the same"
            if found.learning_rate == schedule.learning_rate
            else f"the learning rate is {found.learning_rate:.3g}, the warm-up {found.warmup_steps} steps",
        )
    return found


def _patch_manifest(patches: Path) -> PatchManifest:
    path = patches / "manifest.json"
    try:
        manifest = read_record(PatchManifest, path)
    except DataError:
        remedy = "cut the images with `tiltbox split` again"
        raise DataError(path, "is not the manifest of a split", remedy) from None
    if manifest is None:
        raise DataError(path, "file not found", "cut the images with `tiltbox split` first")
    if not manifest.labelled:
        raise DataError(patches, "has no labels to learn from", "train on a split with labelTxt")
    if not manifest.objects_in_patches:
        if manifest.objects:
            problem = (
                f"contains no objects, though its images have {manifest.objects:,} ({LEFT_OUT} says why)"
            )
            raise DataError(patches, problem, "cut larger patches, or add a rate below 1")
        raise DataError(patches, "contains no objects", "train on images with labelled objects")
    return manifest


def median_object_side(patches: Path, classes: tuple[str, ...]) -> float:
    """The median of the square roots of the objects' areas, in pixels of the patches; 0 without objects."""
    files = list_labels(patches / "annfiles")
    corners = np.concatenate([np.empty((0, 8)), *(read_labels(path, classes).qboxes for path in files)])
    x, y = corners[:, 0::2], corners[:, 1::2]
    areas = np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
    return float(np.median(np.sqrt(areas))) if len(areas) else 0.0


def _held_out(schedule: Schedule, patches: Path, validate: Path | None) -> list[str]:
    """The images to validate on instead of training on them."""
    share = schedule.validation.share
    if validate is not None and schedule.validation.every:
        if share:
            problem = "is for schedules without held-out images, and this one has some (validation: share)"
            raise SettingsError("--validate", problem, "leave it out, or set share to 0")
        patches_to_validate(validate, 1)
    return images_held_out(patches, share)


def _trained_patches(schedule: Schedule, manifest: PatchManifest) -> int:
    return manifest.patches - (0 if schedule.background else manifest.empty_patches)


def _say_what_is_left_out(schedule: Schedule, manifest: PatchManifest) -> None:
    empty = manifest.empty_patches
    if empty and not schedule.background:
        log.info(
            "%s of %s patches contain no objects and are not trained on; to use them, set background: true"
            " in the schedule",
            *(f"{empty:,}", f"{manifest.patches:,}"),
        )


def _steps(schedule: Schedule, variant: Variant, manifest: PatchManifest) -> int:
    """Steps of the whole training."""
    per_process = math.ceil(_trained_patches(schedule, manifest) / schedule.processes)
    epochs = schedule.epochs_of(variant)
    return schedule.max_steps or epochs * math.ceil(per_process / schedule.batch)


def _warn_of_warmup(schedule: Schedule, steps: int) -> None:
    if schedule.warmup_steps > 1 and schedule.warmup_steps >= steps:
        log.warning(
            "schedule: warmup_steps: %d is not less than the %d steps of this training, so the full learning"
            " rate is not reached before its end; lower it (to %d, say) or train longer",
            *(schedule.warmup_steps, steps, steps // 10),
        )


def _write_config(config: Config, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    write_text(work / "config.py", config.pretty_text)


def _launch(config: Path, task: Task, meeting: Meeting | None, processes: int, *, on_cpu: bool) -> None:
    """Train in separate processes: once CUDA has been initialised in a process, a lease no longer changes
    which GPUs it sees, and importing mmengine initialises it.
    """
    command = [*torchrun(task, meeting, processes), "-m", "tiltbox.training.worker", str(config)]
    wanted = KEEP_MEMORY | (QUIET if processes > 1 else {}) if on_cpu else REPEATABLE_PRODUCTS
    if not task.number:
        forget_failure(config)
    killed = killed_for_memory()
    code = run_program(command, {key: value for key, value in wanted.items() if key not in os.environ})
    if code:
        if killed_for_memory() > killed and _is_how_it_ended(code, processes, read_failure(config)):
            _note_lack_of_memory(config)
        problem = f"training ended with exit code {code}"
        remedy = "see the messages above; when started again, it resumes from its last checkpoint"
        failure = None if task.number else read_failure(config)  # for the first task to say
        raise failure or TiltboxError(config, problem, remedy)


def _is_how_it_ended(code: int, processes: int, failure: TiltboxError | None) -> bool:
    """Whether a training ended because one of its processes was killed, not another program beside it."""
    lost_a_loader = code == 1 and isinstance(failure, EndedError)
    under_torchrun = processes > 1 and isinstance(failure, EndedError | None)  # which tells the others to end
    return code == -signal.SIGKILL or lost_a_loader or under_torchrun


def _note_lack_of_memory(config: Path) -> None:
    most = allowed_memory()
    problem = (
        "memory ran out: the system killed a process that trains or loads data; there are"
        f" {most / 2**30:.1f} GiB"
    )
    remedy = (
        "use fewer workers in the schedule, or allow more memory (on SLURM train:mem_mb); when started again,"
        " it resumes from its last checkpoint"
    )
    write_failure(config, TrainingError("training", problem, remedy), memory=most)


def _facts(name: str, variant: Variant, schedule: Schedule, config: Config, gpus: int) -> dict[str, Any]:
    """How the variant was trained, for the report."""
    import mmengine
    import torch

    return {
        "variant": name,
        "size": variant.size,
        "series": variant.series,
        "pretrained": config.pretrained,
        "augmentation": _augmentation(schedule),
        "epochs": schedule.epochs_of(variant),
        "images_per_step": schedule.processes * schedule.batch,
        "processes": schedule.processes,
        "learning_rate": schedule.learning_rate,
        "image_size": schedule.image_size,
        "seed": schedule.seed,
        "device": gpu_name() if gpus else "CPU",
        "config_hash": config.fingerprint,
        "git_commit": tracking.git_commit(),
        "versions": {"tiltbox": __version__, "torch": torch.__version__, "mmengine": mmengine.__version__},
    }


def _augmentation(schedule: Schedule) -> list[str]:
    """The augmentation, in the words of the published table."""
    shares = {"flip": schedule.flip, "RR": schedule.rotate, "mosaic": schedule.mosaic}
    return [name for name, share in shares.items() if share > 0]


def _data(schedule: Schedule, manifest: PatchManifest, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the variant was trained on."""
    return {
        "patch_size": manifest.size,
        **manifest.model_dump(mode="json", include=set(DATA)),
        "patches": _trained_patches(schedule, manifest),
        "objects": manifest.objects_in_patches,
        "classes": len(classes),
    }


def _record(
    begun: Begun, out: Path, outputs: list[Path], schedule: Schedule, variant: Variant, facts: dict[str, Any]
) -> None:
    settings = {
        "name": facts["variant"],
        "schedule": schedule.model_dump(mode="json"),
        "variant": variant.model_dump(mode="json"),
    }
    gpu = None if facts["device"] == "CPU" else facts["device"]
    begun.record(out / SUFFIX, outputs, settings=settings, seed=schedule.seed, gpu=gpu)


@contextmanager
def _only_trainer(out: Path) -> Iterator[None]:
    lock = FileLock(out / TRAINING_LOCK, fallback_to_soft=False)
    try:
        acquired(lock, patience=1)  # `tiltbox track` holds it for a moment, to see whether a training runs
    except Timeout:
        raise OutputError(out, "another process is training here", WAIT_FOR_IT) from None
    try:
        yield
    finally:
        lock.release()
