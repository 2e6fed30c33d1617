"""Detections and objects in the numbers and densities of DOTA, drawn at random, but the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.detections import Detections, write_detections
from tiltbox.dota.labels import Labels, write_labels
from tiltbox.dota.task1 import ClassDetections, write_task1
from tiltbox.geometry.boxes import rbox_to_qbox

SIDE, PATCH, STEP = 3300, 1024, 824  # pixels of an image and of a patch, and from one patch to the next
PER_IMAGE = 250  # detections
OBJECTS = 40  # of an image
# Shares of DOTA's classes among its objects, and their usual length and width.
SHARES = np.array([8, 0.4, 2, 0.3, 26, 17, 28, 2.4, 0.5, 5, 0.3, 0.4, 6, 1.7, 0.6])
LENGTHS = np.array([60, 70, 70, 250, 20, 50, 40, 60, 80, 40, 150, 60, 80, 40, 50])
WIDTHS = np.array([50, 60, 20, 140, 10, 18, 16, 30, 45, 40, 100, 60, 25, 25, 40])
STARTS = np.array([0, STEP, 2 * STEP, SIDE - PATCH])


class Scene:
    """Objects on images, and detections of them on overlapping patches.

    Attributes:
        images: The number of images.
        image, label, rboxes: Columns of the objects, rboxes in pixels of the image.
        found_image, found_label, found, score, x, y: Columns of the detections, in pixels of the image, with
            the corner of their patch.
    """

    def __init__(self, detections: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.images = max(1, detections // PER_IMAGE)
        count = self.images * OBJECTS
        self.image = rng.integers(0, self.images, count)
        self.label = rng.choice(len(SHARES), count, p=SHARES / SHARES.sum())
        self.rboxes = np.concatenate(
            [
                rng.uniform(40, SIDE - 40, (count, 2)),
                np.stack([LENGTHS, WIDTHS], axis=1)[self.label] * rng.lognormal(0, 0.25, (count, 2)),
                rng.uniform(-np.pi / 2, np.pi / 2, (count, 1)),
            ],
            axis=1,
        )
        self._park(rng, rng.random(count) < 0.5)
        self._detect(rng, detections)

    def _park(self, rng: np.random.Generator, parked: np.ndarray) -> None:
        """Put some objects of each image side by side, as cars and ships are: of one class, in rows."""
        rows = np.flatnonzero(parked)[np.argsort(self.image[parked], kind="stable")]
        image = self.image[rows]
        number = np.arange(len(rows)) - np.searchsorted(image, image)  # of each, among those of its image
        self.label[rows] = rng.choice([4, 5, 6, 12], self.images)[image]
        size = np.stack([LENGTHS, WIDTHS], axis=1)[self.label[rows]]
        angle, corner = (
            rng.uniform(-1.5, 1.5, self.images)[image],
            rng.uniform(700, 1500, (self.images, 2))[image],
        )
        along, across = 1.15 * size[:, 0] * (number // 12), 1.25 * size[:, 1] * (number % 12)
        self.rboxes[rows, 0] = corner[:, 0] + along * np.cos(angle) - across * np.sin(angle)
        self.rboxes[rows, 1] = corner[:, 1] + along * np.sin(angle) + across * np.cos(angle)
        self.rboxes[rows, 2:4], self.rboxes[rows, 4] = size * rng.uniform(0.9, 1.1, (len(rows), 2)), angle

    def detect_again(self, detections: int, seed: int) -> None:
        """Replace the detections by others of the same objects, as of another detector."""
        self._detect(np.random.default_rng(seed), detections)

    def _detect(self, rng: np.random.Generator, detections: int) -> None:
        """Most detections are of an object, some of nothing; each is on one of the patches around it."""
        of = rng.integers(0, len(self.image), detections)
        noise = rng.normal(0, 1, (detections, 5)) * [0.05, 0.05, 0.08, 0.08, 0.06]
        boxes = self.rboxes[of]
        long, short = boxes[:, 2:3], boxes[:, 3:4]
        boxes = boxes + noise * np.concatenate([short, short, long, short, np.ones_like(long)], axis=1)
        nothing = rng.random(detections) < 0.3
        boxes[nothing, :2] = rng.uniform(20, SIDE - 20, (int(nothing.sum()), 2))
        wrong = rng.random(detections) < 0.05
        label = np.where(wrong, rng.integers(0, len(SHARES), detections), self.label[of])
        self.found_image, self.found_label, self.found = self.image[of], label, boxes
        self.score = np.where(nothing, rng.beta(1, 8, detections), rng.beta(2, 2, detections)) * 0.95 + 0.05
        self.x, self.y = (self._patch(rng, boxes[:, axis]) for axis in (0, 1))

    @staticmethod
    def _patch(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
        first = np.clip(np.searchsorted(STARTS + PATCH, position), 0, len(STARTS) - 1)
        last = np.clip(np.searchsorted(STARTS, position, side="right") - 1, first, None)
        return STARTS[np.where(rng.random(len(position)) < 0.5, first, last)]

    def name(self, image: int) -> str:
        return f"P{image:05d}"

    def write_labels(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        qboxes = rbox_to_qbox(self.rboxes)
        for image in range(self.images):
            rows = np.flatnonzero(self.image == image)
            names = tuple(DOTA_V1_CLASSES[label] for label in self.label[rows])
            difficult = (rows % 20 == 0).astype(int)
            write_labels(folder / f"{self.name(image)}.txt", Labels(qboxes[rows], names, difficult))
        names = "".join(f"{self.name(image)}\n" for image in range(self.images))
        folder.with_name("images.txt").write_text(names)

    def write_parquet(self, path: Path) -> None:
        local = self.found - np.stack([self.x, self.y, *[np.zeros_like(self.x)] * 3], axis=1)
        images = tuple(map(self.name, range(self.images)))
        columns = (self.found_image, self.x, self.y, np.full_like(self.x, PATCH))
        columns = [column.astype(np.int32) for column in columns]
        labels, score = self.found_label.astype(np.int32), self.score.astype(np.float32)
        found = Detections(images, *columns, DOTA_V1_CLASSES, labels, score, local.astype(np.float32))
        write_detections(path, found)

    def write_task1(self, folder: Path, *, patches: bool) -> None:
        """Task1 files of patches, named as in the devkit, or of whole images."""
        folder.mkdir(parents=True)
        write_task1(
            folder, ((name, self._part(label, patches)) for label, name in enumerate(DOTA_V1_CLASSES))
        )
        (folder / "Task1.zip").unlink()  # the devkit reads every file of the folder

    def _part(self, label: int, patches: bool) -> ClassDetections:
        rows = np.flatnonzero(self.found_label == label)
        qboxes, image = rbox_to_qbox(self.found[rows]), self.found_image[rows]
        if patches:
            qboxes -= np.tile(np.stack([self.x[rows], self.y[rows]], axis=1), 4)
            places = zip(image.tolist(), self.x[rows].tolist(), self.y[rows].tolist(), strict=True)
            names = [f"{self.name(image)}__1__{x}___{y}" for image, x, y in places]
        else:
            names = [self.name(number) for number in image.tolist()]
        return ClassDetections.of(names, self.score[rows], qboxes)
