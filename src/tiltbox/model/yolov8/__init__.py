"""Rotated YOLOv8, with its own C2f blocks or with MS-Blocks in their place."""
