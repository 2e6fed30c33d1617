"""The synthetic ``mini`` set: small aerial-looking images in DOTA format, rendered on the spot."""

from tiltbox.mini.render import render_mini

__all__ = ["render_mini"]
