"""Whether a difference between two detectors may be chance: the paired bootstrap over images.

The scored images are a sample of all images that could have been scored. Each resample draws as many images
from them, with replacement, and scores both detectors on what it drew: an image drawn twice counts as two
images. The 95 % interval is between the 2.5th and the 97.5th percentile of the differences (percentile
method: B. Efron, R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Both detectors see the
same draws, so what makes an image hard for both cancels out.

A detector that was trained more than once, each time with a different seed, has more than one run. A resample
then also draws that many of its runs, with replacement, and takes the mean of their scores. A single run says
nothing about what another training would give: that noise is not in the interval. A few runs miss a part of
it, since a draw from so few varies less than trainings do (by a factor of √(1 - 1/runs)).

The scores of a resample are, to the last bit, those that :mod:`tiltbox.metrics.score` gives for its images,
with the copies of a detection side by side where scores are equal. They cost much less: whether a detection
is right does not depend on which images were drawn, so boxes are compared once, and a resample only counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiltbox.compiled import compiled
from tiltbox.defaults import RESAMPLES, RESAMPLING_SEED
from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections, no_detections
from tiltbox.metrics.ap import RECALL_POINTS
from tiltbox.metrics.objects import Objects, objects_by_class
from tiltbox.metrics.score import IOU_THRESHOLDS, Matches, match
from tiltbox.progress import progress

PERCENTILES = (2.5, 97.5)
SCORES = ("AP50", "AP75", "mAP")


@dataclass(frozen=True)
class Difference:
    """A score of two detectors, as fractions; None without any objects.

    Attributes:
        first, second: The scores on all images, means over runs.
        low, high: The 95 % interval of the difference.
    """

    first: float | None
    second: float | None
    low: float | None
    high: float | None

    @property
    def difference(self) -> float | None:
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def seen(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """Two detectors on the same images.

    Attributes:
        runs: The number of runs of each detector.
        scores: By name (``SCORES``), means over classes.
        classes: The same for each class, by its name.
    """

    images: int
    runs: tuple[int, int]
    resamples: int
    seed: int
    scores: dict[str, Difference]
    classes: dict[str, dict[str, Difference]]


@dataclass(frozen=True)
class Outcomes:
    """All that resampling needs to know of one class and one run: n detections by falling score, m objects.

    Attributes:
        images: For each detection its image, counted in the order of the labels, shape (n,), int32.
        matched: At how many of ``IOU_THRESHOLDS``, starting with the lowest, it matches an object; (n,),
            int8.
        claimed: At how many of these a better detection has claimed that object; -1 if the object is
            difficult, so that the detection counts neither way; shape (n,), int8.
        findable: The image of each object that counts, shape (m,), int32.
    """

    images: np.ndarray
    matched: np.ndarray
    claimed: np.ndarray
    findable: np.ndarray


def compare_runs(
    first: Sequence[Mapping[str, ClassDetections]],
    second: Sequence[Mapping[str, ClassDetections]],
    labels: Mapping[str, Labels],
    classes: Collection[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = RESAMPLING_SEED,
) -> Comparison:
    """Compare two detectors by their detections in whole images.

    Args:
        first, second: The runs of each detector, at least one: detections by class, as
            :func:`tiltbox.metrics.score.evaluate_task1` takes them.
        labels: By image; at least two images.
        classes: The classes to score. A class without objects is left out of the means.
        seed: Seed of the draws: the same seed gives the same intervals on every machine.
    """
    objects, none = objects_by_class(labels, classes), no_detections()
    ours, theirs = (
        [{name: outcomes(run.get(name, none), objects[name]) for name in objects} for run in runs]
        for runs in (first, second)
    )
    return compare_outcomes(ours, theirs, len(labels), resamples=resamples, seed=seed)


def compare_outcomes(
    first: Sequence[Mapping[str, Outcomes]],
    second: Sequence[Mapping[str, Outcomes]],
    images: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = RESAMPLING_SEED,
) -> Comparison:
    """The same from the :class:`Outcomes` of each run by class; all must have the same images and classes."""
    resampling = Resampling(images, resamples, seed)
    return resampling.compare(resampling.aps(first), resampling.aps(second), list(first[0]))


class Resampling:
    """Draws of images, the same for all detectors that are compared.

    Args:
        images: The number of images.
        seed: Seed of the draws.
    """

    def __init__(self, images: int, resamples: int = RESAMPLES, seed: int = RESAMPLING_SEED) -> None:
        self.images, self.resamples, self.seed = images, resamples, seed
        self._counts = image_counts(np.random.default_rng(seed), images, resamples)

    def aps(self, runs: Sequence[Mapping[str, Outcomes]]) -> np.ndarray:
        """AP of each run: shape (runs, 1 + resamples, classes, thresholds); all images come first."""
        return np.stack([_aps(run, self._counts) for run in progress(runs, "resample", len(runs))])

    def ranges(self, aps: np.ndarray) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each score of a detector, as a fraction; None without any objects."""
        scores = mean_scores(self._mean_of_runs(aps, 1))
        return {key: _interval(column[1:]) for key, column in zip(SCORES, scores.T, strict=True)}

    def compare(self, first: np.ndarray, second: np.ndarray, classes: Sequence[str]) -> Comparison:
        """Two detectors by their :meth:`aps`."""
        ours, theirs = self._mean_of_runs(first, 1), self._mean_of_runs(second, 2)
        by_class = {
            name: _differences(_scores(ours[:, at]), _scores(theirs[:, at]))
            for at, name in enumerate(classes)
        }
        overall = _differences(mean_scores(ours), mean_scores(theirs))
        return Comparison(
            self.images, (len(first), len(second)), self.resamples, self.seed, overall, by_class
        )

    def _mean_of_runs(self, aps: np.ndarray, place: int) -> np.ndarray:
        """From shape (runs, r, …) to (r, …), runs drawn with replacement; ``place`` selects the draws."""
        counts = image_counts(np.random.default_rng([self.seed, place]), len(aps), self.resamples)
        weights = counts.T.reshape(*counts.T.shape, *[1] * (aps.ndim - 2))
        return _sum(aps * weights, axis=0) / len(aps)


def image_counts(draw: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """How often each image is drawn: shape (1 + resamples, images), int32; the first row has each once."""
    counts = np.ones((1 + resamples, images), np.int32)
    for row in counts[1:]:
        row[:] = np.bincount(draw.integers(images, size=images), minlength=images)
    return counts


def outcomes(detections: ClassDetections, objects: Objects) -> Outcomes:
    """Match the detections of one class, and keep what resampling needs."""
    matches = match(detections, objects, above=min(IOU_THRESHOLDS))
    return outcomes_of(matches, objects.places(detections), objects)


def outcomes_of(matches: Matches, places: np.ndarray, objects: Objects) -> Outcomes:
    """The same from existing matches.

    Args:
        matches: Matches at IoUs down to the lowest of ``IOU_THRESHOLDS``.
        places: The image of each detection, in the order in which they were given.
    """
    matched = np.searchsorted(IOU_THRESHOLDS, matches.ious).astype(np.int8)  # an IoU must be above
    claimed = _claimed(matched, matches.objects, objects.difficult)
    findable = objects.image[~objects.difficult]
    return Outcomes(places[matches.rows].astype(np.int32), matched, claimed, findable.astype(np.int32))


def resampled_aps(each: Outcomes, counts: np.ndarray) -> np.ndarray:
    """AP of one class at each of ``IOU_THRESHOLDS`` in each resample.

    Args:
        counts: How often each image is drawn, shape (r, images).

    Returns:
        Shape (r, thresholds), float64; NaN in resamples without objects.
    """
    objects = counts.astype(np.int64) @ np.bincount(each.findable, minlength=counts.shape[1])
    columns = each.images, each.matched, each.claimed
    return _weighted_aps(counts, *columns, objects, len(IOU_THRESHOLDS), RECALL_POINTS)


def mean_scores(aps: np.ndarray) -> np.ndarray:
    """AP50, AP75 and mAP over all classes that have objects.

    Args:
        aps: Shape (r, classes, thresholds), NaN if a class has no objects.

    Returns:
        Shape (r, 3); NaN if no class has any.
    """
    each = _scores(aps)
    present = ~np.isnan(each)
    with np.errstate(invalid="ignore"):
        return _sum(np.where(present, each, 0.0), axis=1) / present.sum(axis=1)


def _scores(aps: np.ndarray) -> np.ndarray:
    """AP50, AP75 and mAP along the last axis, from one AP for each threshold."""
    at = [aps[..., IOU_THRESHOLDS.index(threshold)] for threshold in (0.5, 0.75)]
    return np.stack([*at, _sum(aps, axis=-1) / len(IOU_THRESHOLDS)], axis=-1)


def _sum(values: np.ndarray, axis: int) -> np.ndarray:
    """The sum, one by one as in :mod:`tiltbox.metrics.score`, for the same bits."""
    return sum(np.moveaxis(values, axis, 0), np.zeros(()))


def _aps(run: Mapping[str, Outcomes], counts: np.ndarray) -> np.ndarray:
    """Shape (r, classes, thresholds)."""
    return np.stack([resampled_aps(each, counts) for each in run.values()], axis=1)


def _differences(first: np.ndarray, second: np.ndarray) -> dict[str, Difference]:
    """The difference of each score, from a column; the first row is that of all images."""
    found = {}
    for key, ours, theirs in zip(SCORES, first.T, second.T, strict=True):
        low, high = _interval((theirs - ours)[1:]) or (None, None)
        found[key] = Difference(_fraction(ours[0]), _fraction(theirs[0]), low, high)
    return found


def _fraction(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval over the resamples that have a value."""
    values = values[~np.isnan(values)]
    return tuple(np.percentile(values, PERCENTILES).tolist()) if len(values) else None


@compiled
def _claimed(matched: np.ndarray, owners: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """At how many of its matched thresholds a better detection has already claimed the object.

    Thresholds rise, so a match at one is a match at all lower ones, and a count stands for the first so many.
    -1 stands for a difficult object, which no detection can claim.
    """
    used = np.zeros(len(difficult), np.int8)
    claimed = np.zeros(len(matched), np.int8)
    for row in range(len(matched)):
        if matched[row] > 0:
            owner = owners[row]
            if difficult[owner]:
                claimed[row] = -1
            else:
                claimed[row] = min(used[owner], matched[row])
                used[owner] = max(used[owner], matched[row])
    return claimed


@compiled
def _weighted_aps(
    counts: np.ndarray,
    images: np.ndarray,
    matched: np.ndarray,
    claimed: np.ndarray,
    findable: np.ndarray,
    thresholds: int,
    points: np.ndarray,
) -> np.ndarray:
    """VOC 2007's AP with every detection and object counted as often as its image was drawn.

    Copies of a right detection raise recall and precision one by one, so the best precision from any of them
    on is that of the last, and only that one is evaluated. ``best`` has, for each of the recall ``points``,
    the best precision while it was the last point reached.
    """
    aps = np.full((len(counts), thresholds), np.nan)
    for resample in range(len(counts)):
        if findable[resample] == 0:
            continue
        drawn, objects = counts[resample], findable[resample]
        best = np.zeros((thresholds, len(points)))
        right, aside = np.zeros(thresholds, np.int64), np.zeros(thresholds, np.int64)
        reached = np.zeros(thresholds, np.int64)
        seen = 0
        for row in range(len(images)):
            weight = drawn[images[row]]
            seen += weight
            if weight == 0 or matched[row] == 0:
                continue
            if claimed[row] < 0:
                for at in range(matched[row]):
                    aside[at] += weight
                continue
            for at in range(claimed[row], matched[row]):
                right[at] += weight
                recall = right[at] / objects
                while reached[at] + 1 < len(points) and recall >= points[reached[at] + 1]:
                    reached[at] += 1
                precision = right[at] / (seen - aside[at])
                best[at, reached[at]] = max(best[at, reached[at]], precision)
        for at in range(thresholds):
            for point in range(len(points) - 2, -1, -1):
                best[at, point] = max(best[at, point], best[at, point + 1])
            ap = 0.0
            for point in range(len(points)):
                ap += best[at, point] / len(points)
            aps[resample, at] = ap
    return aps
