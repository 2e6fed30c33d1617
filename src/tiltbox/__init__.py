"""Reproducible training and comparison of oriented object detectors on aerial images."""

import os

__version__ = "0.1.0"

# Aerial images may have more than the 2^30 pixels that OpenCV reads otherwise; it looks when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**40))
