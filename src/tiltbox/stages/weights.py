"""Download the weights that a training starts from, on a machine with an internet connection."""

from __future__ import annotations

import logging
from pathlib import Path

from tiltbox.errors import CheckpointError, OutputError
from tiltbox.model.checkpoint import is_address, local_copy, read_checkpoint
from tiltbox.model.variant import Variant
from tiltbox.model.variants import load_variants
from tiltbox.settings.schedules import Schedule, starting_weights

log = logging.getLogger("tiltbox")

_RANDOM = (
    "train from random weights with --schedule small-gpu, or small-cpu without a GPU"
    " (for Snakemake: --config schedule=small-gpu)"
)


def weights(variant: Variant, schedule: Schedule) -> Path | None:
    """Download them to PyTorch's download cache and check that they can be read.

    A training downloads missing weights itself. If the nodes of a cluster have no internet, this must be done
    before, on a machine that shares the cache with them (``TORCH_HOME``, by default in the home folder).

    Returns:
        The copy; None if the schedule or the variant starts from random weights.

    Raises:
        CheckpointError: They cannot be downloaded or read.
    """
    address = starting_weights(schedule, variant)
    if address is None:
        return None
    require_weights(address)
    return local_copy(address)


def weights_at_hand(variant: Variant) -> Path | None:
    """Download the variant's COCO weights, if possible, for a training that may not need them.

    Returns:
        The copy; None if there are none or, with a warning, if they cannot be downloaded.
    """
    address = load_variants().url(variant.pretrained)
    try:
        return local_copy(address) if address else None
    except (CheckpointError, OutputError) as error:  # the second if the cache has no space
        log.warning("%s: %s; a training that needs them will say what to do", error.where, error.problem)
        return None


def require_weights(source: str, *others: str) -> None:
    """Download the weights to start from, unless they are in the cache, and check that they can be read.

    Args:
        source: File or address.
        others: Other remedies if an address gives no weights.

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
