"""The rotated YOLO-MS detectors: modules, builder, checkpoints and complexity."""
