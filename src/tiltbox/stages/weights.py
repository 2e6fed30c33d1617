"""Fetch the weights that a training starts from, where there is an internet connection."""

from __future__ import annotations

import logging
from pathlib import Path

from tiltbox.errors import CheckpointError
from tiltbox.model.checkpoint import is_address, local_copy, read_checkpoint
from tiltbox.settings.schedules import Schedule, starting_weights
from tiltbox.settings.variants import Variant, load_variants

log = logging.getLogger("tiltbox")

_RANDOM = (
    "train from random weights with --schedule small-gpu, or small-cpu without a GPU"
    " (for Snakemake: --config schedule=small-gpu)"
)


def weights(variant: Variant, schedule: Schedule) -> Path | None:
    """Fetch them into PyTorch's download cache and see that they can be read.

    A training fetches what is not there yet. On a cluster whose nodes have no internet this has to be done
    before, on a machine that shares the cache with them (``TORCH_HOME``, by default in the home folder).

    Returns:
        The copy; None where the schedule or the variant starts from random weights.

    Raises:
        CheckpointError: They cannot be downloaded or read.
    """
    address = starting_weights(schedule, variant)
    if address is None:
        return None
    require_weights(address)
    return local_copy(address)


def weights_at_hand(variant: Variant) -> Path | None:
    """Fetch the variant's COCO weights where that can be done, for a training that may not need them.

    Returns:
        The copy; None, with a warning, where they cannot be fetched, and where there are none.
    """
    address = load_variants().url(variant.pretrained)
    try:
        return address and local_copy(address)
    except CheckpointError as error:
        log.warning("%s: %s; a training that needs them will say how to go on", error.where, error.problem)
        return None


def require_weights(source: str, *others: str) -> None:
    """Fetch the weights to start from, unless they are in the cache, and check that they can be read.

    Args:
        source: File or address.
        others: What else can be done where an address gives no weights.

    Raises:
        CheckpointError: They cannot be downloaded or read.
    """
    try:
        read_checkpoint(source)
    except CheckpointError as error:
        if not is_address(source):
            raise
        remedy = ", or ".join((error.remedy, *others, _RANDOM))
        raise CheckpointError(error.where, error.problem, remedy) from None
