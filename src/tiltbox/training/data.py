"""Patches as mmengine reads them."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import FUNCTIONS
from mmrotate.registry import DATASETS

from tiltbox.dota.labels import read_labels
from tiltbox.dota.patches import parse_patch_name
from tiltbox.errors import DataError, TiltboxError
from tiltbox.processes import end_with_parent
from tiltbox.training import mosaic, reading  # noqa: F401  (registers)
from tiltbox.training.passing import PassedError
from tiltbox.training.randomness import seed_all


def end_with_training(worker: int) -> None:
    """Make a data loading process end with the training process, however that ends."""
    end_with_parent(os.getppid(), signal.SIGKILL)


FUNCTIONS.register_module(module=end_with_training)


@DATASETS.register_module()
class PatchDataset(BaseDataset):
    """Patches and annfiles as the split stage writes them, in the order of their names.

    Patches of the images ``held_out`` are skipped, and those without objects unless ``background`` is set.
    The random numbers of a patch follow from the seed, the epoch and its index: reading a patch seeds the
    generators of the process.
    """

    def __init__(
        self,
        patches: str,
        classes: tuple[str, ...],
        background: bool = False,
        held_out: Collection[str] = (),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.patches, self.background, self.held_out = Path(patches), background, frozenset(held_out)
        self.seed = seed
        super().__init__(metainfo={"classes": tuple(classes)}, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        annfiles = sorted((self.patches / "annfiles").glob("*.txt"))
        if self.held_out:
            annfiles = [path for path in annfiles if parse_patch_name(path.stem).image not in self.held_out]
        return [self._patch(path) for path in annfiles]

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out patches without objects, as the published recipe does, unless they are wanted."""
        return [patch for patch in self.data_list if patch["instances"] or self.background]

    def prepare_data(self, place: tuple[int, int]) -> dict[str, Any]:
        """The patch at an epoch and an index through the pipeline, which may draw others for a mosaic."""
        epoch, index = place
        seed_all(self.seed, epoch, index)
        try:
            return self.pipeline(self.get_data_info(index) | {"draw": self._draw})
        except TiltboxError as error:
            raise PassedError.of(error) from None

    def _draw(self) -> dict[str, Any]:
        return self.get_data_info(np.random.randint(len(self)))

    def _patch(self, annfile: Path) -> dict[str, Any]:
        labels = read_labels(annfile, self.metainfo["classes"])
        index = {name: i for i, name in enumerate(self.metainfo["classes"])}
        instances = [
            {"bbox": qbox.tolist(), "bbox_label": index[name], "ignore_flag": 0}
            for qbox, name in zip(labels.qboxes, labels.classes, strict=True)
        ]
        image = self.patches / "images" / f"{annfile.stem}.png"
        if not image.exists():
            remedy = "cut the images again: `tiltbox split`, or `snakemake --forcerun split_train`"
            raise DataError(image, "patch not found", remedy)
        return {"img_id": annfile.stem, "img_path": str(image), "instances": instances}
