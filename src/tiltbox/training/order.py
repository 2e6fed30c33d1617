"""The order in which a training shows its images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class ShuffledOrder(Sampler[tuple[int, int]]):
    """Places in a data set, as epoch and index: another order in each epoch, following from the seed alone.

    Each process gets its share, and all get equally many: a few images are shown twice if necessary.
    It starts in any epoch, after any number of this process's images.
    """

    def __init__(self, dataset: Sized, seed: int) -> None:
        self._images, self._seed = len(dataset), seed
        self._rank, self._processes = get_dist_info()
        self.start_at(0, 0)

    def __len__(self) -> int:
        """Images of this process in a whole epoch."""
        return math.ceil(self._images / self._processes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._images)
        mine = np.resize(order, len(self) * self._processes)[self._rank :: self._processes]
        return ((self._epoch, index) for index in mine[self._shown :].tolist())

    def start_at(self, epoch: int, shown: int) -> None:
        """Start the next iteration in this epoch, after this many images."""
        self._epoch, self._shown = epoch, shown
