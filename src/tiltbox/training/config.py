"""The mmengine Runner's configuration, resolved from a variant, a schedule and a folder of patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from tiltbox.model.detector import detector_config
from tiltbox.model.variant import Variant
from tiltbox.settings.schedules import Precision, Schedule
from tiltbox.training.pipeline import train_pipeline
from tiltbox.training.validation_patches import contents_of, patches_to_validate

VALIDATION_BATCH = 8  # images at most
# With `find_unused_parameters`, PyTorch adds up the processes' gradients in the same order at each step.
# Without it, the first step after a start or resume has another one, which shows from three processes on.
_CPU_WRAPPER = {
    "type": "MMDistributedDataParallel",
    "broadcast_buffers": False,
    "device_ids": None,
    "find_unused_parameters": True,
}


def runner_config(
    variant: Variant,
    schedule: Schedule,
    patches: Path,
    work: Path,
    classes: tuple[str, ...],
    *,
    cuda: bool,
    held_out: Sequence[str] = (),
    validate: Path | None = None,
) -> Config:
    """Everything that a training run depends on, in the form that mmengine's Runner takes.

    Args:
        held_out: Images of ``patches`` to validate on instead of training on them.
        validate: Other patches to validate on, where none are held out.
    """
    epochs = schedule.epochs_of(variant)
    steps_known = schedule.max_steps is not None
    several = schedule.processes > 1
    pipelines = _pipelines(schedule, epochs, classes)
    return Config(
        {
            "default_scope": "mmrotate",
            "model": detector_config(
                variant, len(classes), sync_bn=several and cuda, objective=schedule.objective
            ),
            "train_dataloader": _dataloader(schedule, patches, classes, pipelines[0], held_out)
            | {"pin_memory": cuda},
            "train_cfg": {
                "type": "ResumableLoop",
                "max_epochs": 1 if steps_known else epochs,
                "max_steps": schedule.max_steps,
                "checkpoint_minutes": schedule.checkpoint_minutes,
                "images_at_once": schedule.images_at_once,
            },
            "started": variant.STARTED,
            "optim_wrapper": _optimizer(schedule, cuda=cuda),
            "param_scheduler": _learning_rate(
                schedule, schedule.max_steps or epochs, by_epoch=not steps_known
            ),
            "default_hooks": {
                "logger": None,  # HistoryHook logs everything
                "runtime_info": None,  # it reads every loss at every step, for which a GPU must be waited for
                "timer": None,
                "checkpoint": None,  # the loop saves
                "sampler_seed": None,
            },
            "custom_hooks": [
                {"type": "FiniteHook"},
                {"type": "HistoryHook"},
                *_averaging(schedule),
                *_switches(pipelines),
            ],
            "env_cfg": {
                "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
                "dist_cfg": {"backend": "nccl" if cuda else "gloo"},
            },
            "visualizer": {"type": "Visualizer", "vis_backends": []},
            "log_processor": {"window_size": 50, "by_epoch": not steps_known},
            "log_level": "ERROR",  # otherwise mmengine reports the whole configuration and environment
            "cpu_threads": None if cuda else schedule.threads,
            # What several GPUs tell each other, and gradients that are added up, cannot be recorded.
            "captured": cuda and schedule.cuda_graphs and not several and schedule.images_at_once is None,
            "randomness": {"seed": schedule.seed, "deterministic": cuda and schedule.deterministic},
            "validation": _validation(schedule, patches, classes, held_out, validate),
            "launcher": "pytorch" if several else "none",
            # Spelled out because mmengine's own choice assumes a GPU.
            "model_wrapper_cfg": None if cuda else _CPU_WRAPPER,
            "work_dir": str(work),
        },
        format_python_code=False,
    )


def read_config(path: Path) -> Config:
    """A configuration as it was written; its text is not formatted again each time mmengine asks for it.

    mmengine puts the text into every checkpoint, and formatting it takes longer than writing the weights.
    """
    return Config(Config.fromfile(path).to_dict(), format_python_code=False)


def _dataloader(
    schedule: Schedule,
    patches: Path,
    classes: tuple[str, ...],
    pipeline: list[dict[str, Any]],
    held_out: Sequence[str],
) -> dict[str, Any]:
    return {
        "batch_size": schedule.batch,
        "num_workers": schedule.workers,
        "persistent_workers": schedule.workers > 0,
        "drop_last": False,
        "worker_init_fn": {"type": "end_with_training"},
        "sampler": {"type": "ShuffledOrder", "seed": schedule.seed},
        "dataset": {
            "type": "PatchDataset",
            "patches": str(patches),
            "classes": classes,
            "pipeline": pipeline,
            "seed": schedule.seed,
            **({"background": True} if schedule.background else {}),
            **({"held_out": list(held_out)} if held_out else {}),
        },
    }


def _validation(
    schedule: Schedule,
    patches: Path,
    classes: tuple[str, ...],
    held_out: Sequence[str],
    validate: Path | None,
) -> dict[str, Any] | None:
    """The settings of :class:`tiltbox.training.validation.Validation`; None for no validation."""
    wanted = schedule.validation
    folder = patches if held_out else validate
    if not wanted.every or schedule.max_steps is not None or folder is None:
        return None
    images = list(held_out) or None
    return {
        "patches": str(folder),
        "images": images,
        "contents": contents_of(patches_to_validate(folder, wanted.patches, images)),
        "most": wanted.patches,
        "every": wanted.every,
        "patience": wanted.patience,
        "checkpoint": wanted.checkpoint,
        "image_size": schedule.image_size,
        "batch": min(VALIDATION_BATCH, schedule.batch),
        "classes": list(classes),
    }


def _optimizer(schedule: Schedule, *, cuda: bool) -> dict[str, Any]:
    optimizer = {
        "type": "AdamW",
        "lr": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
        "fused": True,  # a few kernels for all parameters of a group
    }
    wrapper = {"optimizer": optimizer, **_precision(schedule.precision if cuda else "float32")}
    if schedule.muon_lr is None:
        free = {"norm_decay_mult": 0, "bias_decay_mult": 0, "bypass_duplicate": True}
        return wrapper | {"constructor": "GroupingConstructor", "paramwise_cfg": free}
    return wrapper | {
        "constructor": "MuonConstructor",
        "optimizer": optimizer | {"type": "MuonAdamW"},
        "paramwise_cfg": {"muon_lr": schedule.muon_learning_rate},
    }


def _precision(wanted: Precision) -> dict[str, Any]:
    """The layers compute with it; boxes, losses and weights stay in single precision."""
    if wanted == "float32":
        return {"type": "OptimWrapper"}
    # Only gradients in float16 are small enough to vanish unless the loss is scaled.
    scale = "dynamic" if wanted == "float16" else {"enabled": False}
    return {"type": "AmpOptimWrapper", "dtype": wanted, "loss_scale": scale}


def _learning_rate(schedule: Schedule, length: int, *, by_epoch: bool) -> list[dict[str, Any]]:
    """Linear warm-up over steps, a constant part, then a decay to the end of training."""
    warmup = {
        "type": "LinearLR",
        "start_factor": schedule.warmup_start,
        "by_epoch": False,
        "begin": 0,
        "end": schedule.warmup_steps,
    }
    begin = int(length * schedule.constant_share)
    fall: dict[str, Any] = {
        "begin": begin,
        "end": length,
        "by_epoch": by_epoch,
        "convert_to_iter_based": by_epoch,
    }
    if schedule.decay == "linear":
        fall |= {"type": "LinearLR", "start_factor": 1.0, "end_factor": schedule.final_share}
    else:
        lowest = {"eta_min_ratio": schedule.final_share}  # of each group's own rate, including Muon's
        fall |= {"type": "CosineAnnealingLR", **lowest, "T_max": length - begin}
    # A warm-up of one step would never end: mmengine reaches the full rate at the last warm-up step.
    return [*([warmup] if schedule.warmup_steps > 1 else []), *([fall] if begin < length else [])]


def _averaging(schedule: Schedule) -> list[dict[str, Any]]:
    if schedule.ema_momentum is None:
        return []
    return [
        {
            "type": "EMAHook",
            "ema_type": "AveragedWeights",
            "momentum": schedule.ema_momentum,
            "gamma": schedule.ema_warmup,
            "update_buffers": True,
            "priority": 49,
        }
    ]


def _pipelines(schedule: Schedule, epochs: int, classes: tuple[str, ...]) -> dict[int, list[dict[str, Any]]]:
    """Image pipelines by the epoch in which they begin: small images at first, full size at the end."""
    if schedule.max_steps is not None:  # there are no epochs at which to change it
        return {0: train_pipeline(schedule, classes)}
    grown = round(epochs * schedule.early_share) if schedule.early_size < schedule.image_size else 0
    plain = _first_plain_epoch(schedule, epochs) if schedule.mosaic else 0
    begins = sorted({0, grown, plain} - {epochs})
    return {
        begin: train_pipeline(
            schedule.model_copy(
                update={
                    "image_size": schedule.early_size if begin < grown else schedule.image_size,
                    "mosaic": schedule.mosaic if begin < plain else 0,
                }
            ),
            classes,
        )
        for begin in begins
    }


def _first_plain_epoch(schedule: Schedule, epochs: int) -> int:
    """The first epoch without mosaics; if there are to be any such epochs, at least the last one is."""
    return epochs if schedule.mosaic_share == 1 else min(round(epochs * schedule.mosaic_share), epochs - 1)


def _switches(pipelines: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"type": "mmdet.PipelineSwitchHook", "switch_epoch": epoch, "switch_pipeline": pipeline}
        for epoch, pipeline in pipelines.items()
        if epoch > 0
    ]
