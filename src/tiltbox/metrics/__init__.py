"""Scoring of oriented detections by the rules of the DOTA devkit."""
