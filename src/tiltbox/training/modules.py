"""Importing this module registers what a training's configuration names."""

from tiltbox.model import modules  # noqa: F401
from tiltbox.training import averaging, data, finite, grouping, history, loop, muon, order, quads  # noqa: F401
