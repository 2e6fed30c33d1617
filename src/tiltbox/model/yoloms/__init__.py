"""Rotated YOLO-MS, previous and current: MS-Blocks in backbone and neck."""
