"""The rotated YOLO-MS detectors: modules, builder, checkpoints and complexity."""

from tiltbox.model.detector import build_detector

__all__ = ["build_detector"]
