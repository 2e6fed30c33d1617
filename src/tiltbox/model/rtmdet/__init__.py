"""Rotated RTMDet (RTMDet-R): CSPNeXt backbone and neck."""
