"""How a detector is trained: typed files of ``configs/schedules/``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tiltbox.configs import CONFIGS, Settings, known_name, load
from tiltbox.devices.gpus import require_gpus
from tiltbox.errors import SettingsError
from tiltbox.model.objective import Objective
from tiltbox.model.variant import Size, Variant
from tiltbox.model.variants import load_variants

# At 32 px the coarsest features are a single cell, and batch norm cannot train on one value per image.
SMALLEST_IMAGE = 64


def _for_all_sizes(value: Any) -> Any:
    return value if isinstance(value, dict) else {OTHERS: value}


# Epochs by model size; large detectors may get fewer if time is short. One number is for all sizes.
OTHERS: Literal["others"] = "others"
Epochs = Annotated[
    dict[Size | Literal["others"], Annotated[int, Field(ge=1)]],
    BeforeValidator(_for_all_sizes),
    Field(min_length=1),
]


Precision = Literal["float32", "float16", "bfloat16"]


class Validation(Settings):
    """How a detector is scored while it learns; without a held-out share, this changes no weights.

    The test images must not decide which weights are scored on them, or the scores come out too high.
    Deciding needs images of its own.
    """

    every: int = Field(5, ge=0, description="epochs between validations, counted from the last; 0 for none")
    patches: int = Field(200, ge=1, description="largest number to score, spread evenly over all patches")
    share: float = Field(
        0, ge=0, lt=1, description="share of the training images to hold out for it; 0: use the test split"
    )
    patience: int | None = Field(
        None, ge=1, description="the training ends after this many validations without a better AP50"
    )
    checkpoint: Literal["last", "best"] = Field("last", description="the epoch whose weights are the result")

    @property
    def decides(self) -> bool:
        """Whether scores during training influence which weights are the result."""
        return self.patience is not None or self.checkpoint == "best"

    @model_validator(mode="after")
    def _decides_by_its_own_images(self) -> Self:
        for key, decides in (("patience", self.patience), ("checkpoint: best", self.checkpoint == "best")):
            if decides and not self.share:
                raise ValueError(f"{key} needs held-out images to decide by; set share, for example to 0.1")
        if self.share and not self.every:
            raise ValueError("share holds out images that are never used; set every, or set share to 0")
        return self


class Schedule(Settings):
    """One way to train.

    The learning rate follows the linear rule: ``base_lr`` is meant for ``base_batch`` images a step, and
    is multiplied by (processes x batch) / base_batch. :meth:`on` says what another number of processes means.
    """

    processes: int = Field(ge=1, description="GPUs, with a process each; on the CPU there is one process")
    batch: int = Field(ge=1, description="images per process and step")
    images_at_once: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="images of a process computed at once if memory is short; auto: as many as fit"
    )
    epochs: Epochs = Field(description="a number, or one for each size, such as {l: 3, others: 6}")
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps, regardless of epochs")
    image_size: int = Field(
        1024, ge=SMALLEST_IMAGE, multiple_of=32, description="side to which patches are resized"
    )
    early_scale: float = Field(
        1, gt=0, le=1, description="share of that side in the first epochs, rounded to 32 px"
    )
    early_share: float = Field(
        0.5, ge=0, le=1, description="share of the epochs, from the first, with these smaller images"
    )
    base_lr: float = Field(gt=0)
    base_batch: int = Field(ge=1)
    muon_lr: float | None = Field(
        None, gt=0, description="rate of Muon, for the convolutions; scaled likewise; null: AdamW for all"
    )
    weight_decay: float = Field(0.05, ge=0)
    warmup_steps: int = Field(ge=0)
    warmup_start: float = Field(1e-5, gt=0, le=1, description="share of the learning rate at step 0")
    constant_share: float = Field(ge=0, le=1, description="share of the epochs before the rate falls")
    decay: Literal["cosine", "linear"] = Field("cosine", description="how the rate falls")
    final_share: float = Field(0.05, gt=0, le=1, description="share of the learning rate at the end")
    ema_momentum: float | None = Field(
        0.0002, gt=0, lt=1, description="momentum of the averaged weights; null for none"
    )
    ema_warmup: int = Field(2000, ge=1, description="steps over which that momentum falls from 1")
    flip: float = Field(0.75, ge=0, le=1, description="probability, shared by three directions")
    rotate: float = Field(0.5, ge=0, le=1, description="probability of a random rotation")
    mosaic: float = Field(0, ge=0, le=1, description="probability that an image is composed of four")
    mosaic_share: float = Field(1, ge=0, le=1, description="share of the epochs, from the first, with it")
    background: bool = Field(False, description="whether patches without objects are also used for training")
    objective: Objective = Objective()
    validation: Validation = Validation()
    pretrained: bool = Field(True, description="start from the variant's COCO weights")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a process without a GPU; null: all, and results vary"
    )
    deterministic: bool = Field(
        False, description="the same bits each time on GPUs of one kind, but slower; CPUs repeat anyway"
    )
    precision: Precision = Field(
        "float32", description="of the layers on GPUs; boxes and losses are always computed in float32"
    )
    cuda_graphs: bool = Field(
        True, description="record the layers' work and replay it, which one GPU does faster"
    )
    checkpoint_minutes: float = Field(
        5, ge=0, description="minutes between checkpoints: what a killed training loses at most"
    )
    workers: int = Field(4, ge=0, description="data loading processes per training process")
    seed: int = 0

    @model_validator(mode="after")
    def _images_grow(self) -> Self:
        if self.early_scale < 1 and self.early_share == 1:
            raise ValueError("early_share: 1 never shows images in full size; lower it, or lower image_size")
        return self

    @model_validator(mode="after")
    def _steps_suffice(self) -> Self:
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ValueError("warmup_steps is larger than max_steps; lower one or raise the other")
        return self

    @model_validator(mode="after")
    def _epochs_are_there_to_decide_by(self) -> Self:
        if self.max_steps is not None and self.validation.decides:
            raise ValueError("validation needs epochs, which max_steps does not have; remove one of the two")
        return self

    def epochs_of(self, variant: Variant) -> int:
        """Epochs that a detector of this size gets; a SettingsError if the schedule does not say."""
        epochs = self.epochs.get(variant.size, self.epochs.get(OTHERS))
        if epochs is None:
            problem = f"gives no number for size {variant.size} (only for {', '.join(self.epochs)})"
            raise SettingsError(
                "schedule: epochs", problem, f"add '{variant.size}', or '{OTHERS}' for the rest"
            )
        return epochs

    def on(self, processes: int, *, cuda: bool) -> Self:
        """The same recipe for another number of processes.

        On GPUs a step keeps its images, which the processes share as evenly as can be; batch norm looks at
        all of them, so results stay the same. On a CPU each process keeps its ``batch``, which its batch norm
        needs. Where a step has more or fewer images in all, the learning rate follows the linear rule, and
        warm-up and averaged weights extend over as many images as before.
        """
        images = self.processes * self.batch
        batch = max(1, round(images / processes)) if cuda else self.batch
        share = processes * batch / images
        momentum = self.ema_momentum and min(self.ema_momentum * share, 0.5)
        return self.model_copy(
            update={
                "processes": processes,
                "batch": batch,
                "warmup_steps": round(self.warmup_steps / share),
                "ema_momentum": momentum,
                "ema_warmup": max(1, round(self.ema_warmup / share)),
            }
        )

    @property
    def early_size(self) -> int:
        """The side of images in the first epochs."""
        return max(SMALLEST_IMAGE, round(self.image_size * self.early_scale / 32) * 32)

    @property
    def learning_rate(self) -> float:
        return self.base_lr * self._share

    @property
    def muon_learning_rate(self) -> float | None:
        return self.muon_lr and self.muon_lr * self._share

    @property
    def _share(self) -> float:
        return self.processes * self.batch / self.base_batch


def gpus_to_use(schedule: Schedule, asked: int | None, here: int, *, option: str, name: str = "") -> int:
    """GPUs that a training gets: as many as asked for, else as the schedule says, or 0 if there are none.

    Args:
        option: How the user asks for GPUs, up to the number: ``"gpus="`` or ``"--gpus "``.
        name: The schedule's name, for the error.

    Raises:
        SettingsError: There are some, but fewer than the schedule says; or fewer than asked for.
    """
    if asked is not None:
        return require_gpus(asked, here, option)
    if here == 0 or schedule.processes <= here:
        return min(schedule.processes, here)
    problem = f"schedule {name}".rstrip() + f" wants {schedule.processes} GPUs, but this machine has {here}"
    remedy = f"choose another schedule (such as dota-1gpu), {option}{here} or {option}0"
    raise SettingsError(option.rstrip("= "), problem, remedy)


def starting_weights(schedule: Schedule, variant: Variant) -> str | None:
    """The address of the weights that a training starts from; None if they are random."""
    return load_variants().url(variant.pretrained) if schedule.pretrained else None


def find_schedule(name_or_file: str, configs: Path = CONFIGS) -> Schedule:
    """A schedule by the name of a file in ``configs/schedules`` or by its path."""
    if name_or_file.endswith((".yaml", ".yml")):
        return load(Schedule, Path(name_or_file))
    folder = configs / "schedules"
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    return load(Schedule, folder / f"{known_name(name_or_file, names, str(folder), 'schedule')}.yaml")
