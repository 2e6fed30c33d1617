"""Importing this module registers what the detectors have in common with mmrotate."""

from tiltbox.model import assigner, losses  # noqa: F401
