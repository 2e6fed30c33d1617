"""Importing this module puts every part of the detectors into mmrotate's registries."""

from tiltbox.model import assigner, backbone, head, neck, overlaps  # noqa: F401
