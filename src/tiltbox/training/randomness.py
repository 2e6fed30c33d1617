"""Random numbers that follow from what they are for, and not from what was drawn before.

So the augmentation of an image is the same whichever process reads it, and after a resume.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(*numbers: int) -> None:
    """Seed the generators of Python, numpy and torch in this process by these numbers together.

    >>> seed_all(0, 3, 7)
    >>> first = random.random(), np.random.rand(), torch.rand(()).item()
    >>> seed_all(0, 3, 7)
    >>> first == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    words = np.random.SeedSequence(numbers).generate_state(4)
    np.random.seed(words)
    random.seed(words.tobytes())
    torch.manual_seed(int(words[0]))
