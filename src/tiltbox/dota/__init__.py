"""DOTA formats: labels, patch names, windows, images, detections and Task1 files."""
