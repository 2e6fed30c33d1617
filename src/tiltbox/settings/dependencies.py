"""The settings on which the weights of a training depend.

Snakemake trains again if one of them has changed, and a killed training resumes only if none has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tiltbox.configs import fingerprint
from tiltbox.model.variant import ASIDE, Variant
from tiltbox.settings.schedules import Schedule


def detector(variant: Variant, classes: Sequence[str]) -> str:
    """A hash of what defines a detector and its classes, apart from its weights."""
    row = variant.model_dump(mode="json", exclude=ASIDE)
    return fingerprint(row, {"classes": classes})


def training(
    variant: Variant, classes: Sequence[str], schedules: Iterable[Schedule], start: str | None
) -> list[dict[str, Any]]:
    """Everything but the patches that counts as a setting of a training.

    Args:
        schedules: The schedule with the training's own seed and number of processes, or each that may be
            chosen.
        start: File or address of the weights to start from; None if they are random.
    """
    decisive = (_decisive(schedule, variant) | {"pretrained": start} for schedule in schedules)
    return [{"detector": detector(variant, classes)}, *decisive]


def _decisive(schedule: Schedule, variant: Variant) -> dict[str, Any]:
    """All keys count unless they are left out here.

    The number of CPU threads counts, since it changes the last digits of sums, which a training amplifies.
    That of data loading processes changes nothing, and neither does the time between checkpoints. Recorded
    steps differ by rounding, on GPUs, which do not repeat to the bit anyway; whoever turns them off because
    memory ran out wants to go on.
    """
    technical = {"workers", "checkpoint_minutes", "cuda_graphs"}
    return (
        schedule.model_dump(mode="json", exclude={*technical, "epochs", "validation"})
        | _held_out(schedule)
        | {"epochs": schedule.epochs_of(variant)}
    )


def _held_out(schedule: Schedule) -> dict[str, Any]:
    """Of the validation, the share of images that are not trained on, and the rest only if it decides."""
    validation = schedule.validation
    if not validation.share:
        return {}
    return {
        "validation": validation.model_dump(mode="json", include=None if validation.decides else {"share"})
    }
