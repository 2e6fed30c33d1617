"""Oriented boxes: conversions, areas, intersections, IoU and NMS, in NumPy/numba and in PyTorch."""
