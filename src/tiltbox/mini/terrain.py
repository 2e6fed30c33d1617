"""Textured grounds: value noise mixed between two colours, in whole numbers only."""

from __future__ import annotations

import numpy as np

from tiltbox.mini.canvas import Colour

#: The two colours between which each ground varies.
GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "grass": ((84, 104, 62), (124, 140, 88)),
    "meadow": ((108, 120, 72), (146, 150, 98)),
    "soil": ((136, 116, 90), (168, 148, 118)),
    "sand": ((176, 162, 128), (200, 186, 152)),
    "asphalt": ((92, 94, 98), (116, 118, 120)),
    "concrete": ((148, 146, 140), (172, 170, 162)),
    "water": ((34, 62, 84), (56, 90, 110)),
}


def ground(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """A square of that ground, uint8 BGR (size, size, 3)."""
    low, high = (np.array(colour[::-1]) for colour in GROUNDS[kind])
    layers = [_noise(rng, size, cell) * weight for cell, weight in ((64, 4), (16, 2), (4, 1))]
    share = np.sum(layers, axis=0) // 7
    grain = rng.integers(-7, 8, (size, size, 1))
    return np.clip(low + (high - low) * share[..., None] // 255 + grain, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, size: int, cell: int) -> np.ndarray:
    """Random values at the corners of square cells, interpolated between: int (size, size) in 0..255."""
    corners = rng.integers(0, 256, (size // cell + 2, size // cell + 2))
    index, offset = np.divmod(np.arange(size), cell)
    rows = corners[index] * (cell - offset)[:, None] + corners[index + 1] * offset[:, None]
    return (rows[:, index] * (cell - offset) + rows[:, index + 1] * offset) // (cell * cell)
