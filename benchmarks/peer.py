"""Ultralytics' oriented detector on the same images, trained by a separate interpreter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from trainings import Ground, Score, run

from tiltbox.dota.images.pixels import read_image, write_png
from tiltbox.dota.labels import write_labels
from tiltbox.dota.sources import SourceImage, read_sources

SCRIPT = Path(__file__).with_name("ultralytics_training.py")
MODEL = "yolov8n-obb.yaml"
SAMPLE = 64  # images of a training that only measures the speed


@dataclass(frozen=True)
class Peer:
    """Trains the other detector and scores it.

    Attributes:
        python: The interpreter with Ultralytics.
        size: Side that images are resized to.
    """

    python: Path
    ground: Ground
    size: int
    name: str = f"Ultralytics, {MODEL.removesuffix('.yaml')}"

    def prepare(self) -> None:
        """The dataset in its format: normalised corners, categories in the order of our classes."""
        for part in ("train", "val"):
            _write_part(self.ground, part, self._data / part)
        content = {"path": str(self._data), "train": "train/images", "val": "val/images"}
        content |= {"names": dict(enumerate(self.ground.classes))}
        (self._data / "data.yaml").write_text(yaml.safe_dump(content))

    def epochs_within(self, seconds: float) -> int:
        images = len(list((self._data / "train/images").iterdir()))
        share = min(1.0, SAMPLE / images)
        (start, _), (second, end) = self._train(
            self.ground.folder / "peer-pace", "--epochs", 2, "--fraction", share
        )
        return max(1, int((seconds - start) / ((end - second) / share)))

    def result(self, epochs: int) -> tuple[float, Score]:
        """CPU seconds until the end of the last epoch, and the score."""
        out = self.ground.folder / f"peer-{epochs}"
        marks = self._train(out, "--epochs", epochs, "--predict")
        names = ["--names", self._data / "data.yaml"]
        labels = self._data / "val/labelTxt"
        return marks[-1][1], self.ground.evaluate(out / "val/predictions.json", labels, out, *names)

    @property
    def _data(self) -> Path:
        return self.ground.folder / "peer"

    def _train(self, out: Path, *options: object) -> list[list[float]]:
        out.mkdir()
        command = [self.python, SCRIPT, MODEL, self._data / "data.yaml", out, "--size", self.size, *options]
        # It would look for updates and keep settings in the home folder. It must not see our packages,
        # either.
        own = {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(out), "PYTHONPATH": ""}
        run(command, out / "peer.log", own)
        return json.loads((out / "cpu.json").read_text())


def _write_part(ground: Ground, part: str, out: Path) -> None:
    """Images, and labels in both formats.

    All images are written as PNG, since it may rewrite a JPEG that it considers damaged, and applies the
    orientation in EXIF data. Names with only digits would lose leading zeros in its results, so all get a
    letter.
    """
    for folder in ("images", "labels", "labelTxt"):
        (out / folder).mkdir(parents=True)
    for source in read_sources([ground.raw / part], ground.classes):
        name = f"i{source.image.stem}"
        write_png(out / f"images/{name}.png", read_image(source.image))
        write_labels(out / f"labelTxt/{name}.txt", source.labels)
        (out / f"labels/{name}.txt").write_text(_normalised(source, ground.classes))


def _normalised(source: SourceImage, classes: Sequence[str]) -> str:
    """One line per object: the number of its class, then its corners as shares of the image's sides."""
    corners = source.labels.qboxes / np.tile([source.width, source.height], 4)
    rows = zip(source.labels.classes, corners.tolist(), strict=True)
    return "".join(f"{classes.index(name)} {' '.join(f'{x:.6f}' for x in row)}\n" for name, row in rows)
