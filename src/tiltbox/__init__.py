"""Reproducible training and comparison of oriented object detectors on aerial images."""

__version__ = "0.1.0"
