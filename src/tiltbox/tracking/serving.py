"""A trained detector on whole images, as MLflow loads it.

It does what the stages split, predict and merge do: an image is cut as the training's patches were, and the
detections of overlapping windows are merged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltbox.defaults import MERGE_IOU, PREDICTION_BATCH
from tiltbox.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

DATA, FACTS, CHECKPOINT = "data", "detector.json", "checkpoint.pth"
COLUMNS = ("class", "score", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


class Detector:
    """A detector from the folder of a logged model; on the GPU if there is one."""

    def __init__(self, folder: Path) -> None:
        import torch

        from tiltbox.dota.windows import Cutting
        from tiltbox.model import build_detector
        from tiltbox.model.checkpoint import load_exactly, read_checkpoint
        from tiltbox.model.inference import require_finite
        from tiltbox.model.variants import read_variant

        facts = json.loads((folder / FACTS).read_text())
        _, meta = read_checkpoint(folder / CHECKPOINT)
        self.classes = tuple(meta["classes"])
        self._model = build_detector(read_variant(facts["variant"]), num_classes=len(self.classes))
        load_exactly(self._model, folder / CHECKPOINT, facts["name"])
        self._model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        require_finite(self._model)
        self._size = facts["image_size"]
        cutting = facts["cutting"]
        self._cutting = Cutting(cutting["size"], cutting["overlap"], tuple(cutting["rates"]), cutting["iof"])

    def predict(self, image: np.ndarray, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Detections on one image.

        Args:
            image: uint8, height × width × 3, RGB (as in Pillow and matplotlib; OpenCV has BGR).

        Returns:
            A row for each detection, the best first: ``class``, ``score`` and the corners ``x1`` to ``y4`` in
            pixels of the image.

        Raises:
            DataError: The array has another type or shape.
        """
        import pandas as pd

        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            problem = f"is {image.dtype} of shape {image.shape}"
            raise DataError("the image", problem, "give uint8 of height × width × 3, RGB")
        labels, scores, qboxes = self._merged(*self._found(np.ascontiguousarray(image[:, :, ::-1])))
        order = np.argsort(-scores, kind="stable")
        names = np.array(self.classes, dtype=object)[labels[order]]
        columns = [names, scores[order], *qboxes[order].T]
        return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))

    def _found(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels, scores and qboxes of all windows, in pixels of the image."""
        from tiltbox.dota.images.pixels import pixels_in
        from tiltbox.geometry.boxes import rbox_to_qbox
        from tiltbox.model.inference import detect_images

        windows = self._cutting.windows(image.shape[1], image.shape[0])
        patches = [pixels_in(image, window) for window in windows]
        parts = []
        for window, found in zip(
            windows,
            detect_images(self._model, patches, image_size=self._size, batch=PREDICTION_BATCH),
            strict=True,
        ):
            labels, scores, rboxes = found
            parts.append((labels, scores, rbox_to_qbox(rboxes) + np.tile(window[:2], 4)))
        labels, scores, qboxes = map(np.concatenate, zip(*parts, strict=True))
        return labels, scores, qboxes

    def _merged(
        self, labels: np.ndarray, scores: np.ndarray, qboxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from tiltbox.geometry.nms import nms_quads

        kept = []
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            kept.append(rows[nms_quads(qboxes[rows], scores[rows].astype(np.float64), MERGE_IOU)])
        rows = np.concatenate(kept) if kept else np.empty(0, np.int64)
        return labels[rows], scores[rows], qboxes[rows]


def _load_pyfunc(path: str) -> Detector:
    """MLflow calls it by this name, with the folder ``data`` of a model."""
    return Detector(Path(path))
