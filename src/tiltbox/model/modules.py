"""Importing this module registers every part of the detectors with mmrotate."""

from tiltbox.model import assigner, backbone, head, neck, overlaps  # noqa: F401
