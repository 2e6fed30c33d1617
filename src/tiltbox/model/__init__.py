"""The detectors: rows and modules of each family, builder, checkpoints and complexity."""

from tiltbox.model.detector import build_detector

__all__ = ["build_detector"]
