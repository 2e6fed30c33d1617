"""Scoring of oriented detections in whole images, Task 1 of DOTA, by the rules of its devkit.

For each class, detections are taken by falling score (equal scores in input order, which the devkit leaves to
an unstable sort). Each is compared with the object of its image that it overlaps most, difficult ones
included. If that IoU is above the threshold (not if equal) it is a match: of a difficult object, which counts
neither for nor against it; of an object that no better detection has claimed, which makes the detection
right; or of any other, which makes it wrong. A detection without a match is wrong, too. The next best object
is never tried. AP is that of VOC 2007.

Which object a detection overlaps most does not depend on the threshold, so one pass over the boxes serves
all thresholds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from tiltbox.defaults import ABSENT_CLASSES
from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections, no_detections
from tiltbox.errors import SettingsError
from tiltbox.geometry.polygons import best_overlaps
from tiltbox.metrics.angles import MATCH_IOU, AngleError, angle_error, angle_errors
from tiltbox.metrics.ap import voc07_ap
from tiltbox.metrics.objects import Objects, objects_by_class
from tiltbox.progress import progress

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True)
class Curve:
    """Precision over recall at one threshold, one point for each detection, best first; all of shape (n,).

    The recall is NaN without objects to find.
    """

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Matches:
    """The detections of one class by falling score, each with the object it overlaps most.

    Attributes:
        scores, ious: Shape (n,).
        rows: The row of each among the detections as they were given, shape (n,).
        objects: Row of the object, shape (n,); -1 if it touches no object.
        difficult: Whether each object is difficult, shape (m,), bool.
    """

    scores: np.ndarray
    ious: np.ndarray
    rows: np.ndarray
    objects: np.ndarray
    difficult: np.ndarray

    @property
    def findable(self) -> int:
        """The number of objects that count."""
        return int((~self.difficult).sum())

    def verdicts(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Which detections are right, and which count neither way; both of shape (n,), bool.

        A match has an IoU above ``threshold``, which must not be below that of :func:`match`.
        """
        matched = self.ious > threshold
        neutral = matched.copy()
        neutral[matched] = self.difficult[self.objects[matched]]
        right = np.zeros(len(matched), dtype=bool)
        claims = np.flatnonzero(matched & ~neutral)
        first = np.full(len(self.difficult), -1)
        first[self.objects[claims[::-1]]] = claims[::-1]  # of competing claims the last assigned stays
        right[first[first >= 0]] = True
        return right, neutral

    def curve(self, threshold: float) -> Curve:
        """Precision and recall by the :meth:`verdicts` at ``threshold``."""
        right, neutral = self.verdicts(threshold)
        right_so_far, wrong_so_far = np.cumsum(right), np.cumsum(~right & ~neutral)
        with np.errstate(invalid="ignore"):  # 0/0 without objects
            recall = right_so_far / float(self.findable)
        # The devkit's guard against 0/0 when the first detections match difficult objects.
        judged = np.maximum(right_so_far + wrong_so_far, np.finfo(np.float64).eps)
        return Curve(recall, right_so_far / judged, self.scores)


@dataclass(frozen=True)
class ClassScore:
    """The result for one class.

    Attributes:
        aps: AP at each threshold; None for a class without objects.
        objects: The number of objects to find; difficult ones do not count.
        detections: The number of detections.
        matches: The matches, from which the curve of any threshold can be computed.
        places: The image of each detection as it was given, an index into the names of ``objects``.
        angle_errors: Those of the elongated objects that were found, in degrees
            (:mod:`tiltbox.metrics.angles`).
    """

    aps: tuple[float, ...] | None
    objects: int
    detections: int
    matches: Matches
    places: np.ndarray
    angle_errors: np.ndarray

    def ap(self, at: int) -> float | None:
        """AP at the threshold of that index."""
        return None if self.aps is None else self.aps[at]

    @property
    def mean_ap(self) -> float | None:
        return None if self.aps is None else _mean(self.aps)


@dataclass(frozen=True)
class Task1Score:
    """The result for all classes.

    Attributes:
        thresholds: IoU thresholds.
        classes: The result for each class, by name, in the order they were given.
        objects: The objects of each class, by name.
    """

    thresholds: tuple[float, ...]
    classes: dict[str, ClassScore]
    objects: dict[str, Objects]

    def ap(self, threshold: float) -> float | None:
        """Mean AP over the classes at one of the thresholds; None if no class has objects."""
        at = self.thresholds.index(threshold)
        return _mean([score.ap(at) for score in self.classes.values()])

    @property
    def mean_ap(self) -> float | None:
        """Mean AP over classes and thresholds."""
        return _mean([score.mean_ap for score in self.classes.values()])

    @property
    def angle_error(self) -> AngleError:
        """The angle error of the objects of all classes together, not a mean over the classes."""
        return angle_error(score.angle_errors for score in self.classes.values())


def evaluate_task1(
    detections: Mapping[str, ClassDetections],
    labels: Mapping[str, Labels],
    classes: Collection[str],
    *,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    absent_classes: str = ABSENT_CLASSES,
) -> Task1Score:
    """Score detections of whole images against their labels.

    Args:
        detections: Detections by class; their images must be in ``labels``. A missing class has none.
        labels: Labels by image. Any difficulty other than 0 makes an object difficult, as in the devkit.
        classes: The classes to score; other classes of the labels are left out.
        thresholds: IoU thresholds.
        absent_classes: A class without objects (or with difficult ones alone) is left out of the means with
            ``"null"`` and has AP 0 with ``"zero"``, as in the devkit.

    Raises:
        SettingsError: ``absent_classes`` is neither.
    """
    if absent_classes not in ("null", "zero"):
        raise SettingsError("absent_classes", f"'{absent_classes}' is unknown", "choose null or zero")
    none, objects = no_detections(), objects_by_class(labels, classes)
    scores = {
        name: score_class(detections.get(name, none), objects[name], thresholds, absent_classes == "zero")
        for name in progress(classes, "evaluate", len(classes))
    }
    return Task1Score(tuple(thresholds), scores, objects)


def score_class(
    detections: ClassDetections,
    objects: Objects,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    absent_is_zero: bool = False,
) -> ClassScore:
    """Score the detections of one class; see :func:`evaluate_task1`."""
    matches = match(detections, objects, above=min(*thresholds, MATCH_IOU))
    curves = [matches.curve(threshold) for threshold in thresholds]
    scored = matches.findable > 0 or absent_is_zero
    aps = tuple(voc07_ap(curve.recall, curve.precision) for curve in curves) if scored else None
    right, _ = matches.verdicts(MATCH_IOU)
    found, labelled = detections.qboxes[matches.rows[right]], objects.qboxes[matches.objects[right]]
    places = objects.places(detections)
    errors = angle_errors(found, labelled)
    return ClassScore(aps, matches.findable, len(detections), matches, places, errors)


def match(detections: ClassDetections, objects: Objects, *, above: float = 0.0) -> Matches:
    """Find the object that each detection overlaps most; if tied, the first.

    IoUs that are not ``above`` some number may come out smaller.

    Boxes without area and boxes that are not finite overlap nothing (:mod:`tiltbox.geometry.polygons`).
    """
    places = objects.places(detections)
    ious, best = best_overlaps(detections.qboxes, places, objects.qboxes, objects.image, above=above)
    order = np.argsort(-detections.scores, kind="stable")
    return Matches(detections.scores[order], ious[order], order, best[order], objects.difficult)


def _mean(values: Sequence[float | None]) -> float | None:
    """Added one by one: the last bit of ``sum`` depends on the version of Python (since 3.12)."""
    present = [value for value in values if value is not None]
    return reduce(add, present) / len(present) if present else None
