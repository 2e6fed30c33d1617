"""Fetch the weights that a training starts from, where there is an internet connection."""

from __future__ import annotations

from pathlib import Path

from tiltbox.model.checkpoint import local_copy, read_checkpoint
from tiltbox.settings.schedules import Schedule, starting_weights
from tiltbox.settings.variants import Variant


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
    read_checkpoint(address)
    return local_copy(address)
