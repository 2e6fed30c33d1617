"""What may be compared with what, in sentences for below the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tiltbox.metrics.angles import ELONGATED, MATCH_IOU
from tiltbox.records import Metrics, Training
from tiltbox.report.collect import RECIPE, Row
from tiltbox.report.formatting import counted
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty
from tiltbox.settings.published import Published

STANDARD_INPUT = (1, 3, 1024, 1024)


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Every row that is compared with another, after that other one, in the order of the others."""
    return [(first, second) for first in rows for second in rows if first.name in second.compared_with]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that plots show together: those of a size, and those compared with each other, in their order."""
    found: list[list[Row]] = []
    for row in rows:
        near = [group for group in found if any(_belong_together(row, other) for other in group)]
        found = [group for group in found if group not in near]
        found.append([*(other for group in near for other in group), row])
    place = {row.name: at for at, row in enumerate(rows)}
    ordered = [sorted(group, key=lambda row: place[row.name]) for group in found]
    return sorted(ordered, key=lambda group: place[group[0].name])


def _belong_together(one: Row, other: Row) -> bool:
    compared = one.name in other.compared_with or other.name in one.compared_with
    return compared or one.size == other.size


def same_test_set(row: Row, published: Published) -> bool:
    """Whether the row was scored on what the published numbers were scored on."""
    theirs = published.conditions
    return row.metrics is not None and (row.dataset, row.metrics.split) == (theirs.dataset, theirs.split)


def accuracy_note(rows: Sequence[Row]) -> str | None:
    """What accuracy was measured on, or why there is none."""
    test_sets = _unique(_test_set(row.dataset, row.metrics) for row in rows if row.metrics)
    if test_sets:
        return f"Accuracy was measured on {_listed(test_sets)}; difficult objects do not count."
    return (
        "There is no accuracy yet: evaluation has not run, or the test split has no labels here. "
        "For DOTA's own test set, submit each variant's merge/Task1.zip to the evaluation server."
    )


def angle_note(rows: Sequence[Row]) -> str | None:
    """What the angle error is, if any row has one."""
    if all(row.figure("angle_median") is None for row in rows):
        return None
    return (
        "Angle error: degrees, from 0 to 90, between the long axes of an object and of the detection that "
        f"is right about it at IoU {MATCH_IOU}, for objects at least {ELONGATED} times as long as wide; "
        "median and 90th percentile (p90), lower is better. "
        "Objects that were not found are not included: read it together with AP."
    )


def left_out_note(rows: Sequence[Row]) -> str | None:
    """A warning if trainings with other seeds are older than a change of the recipe or of the data."""
    found = [f"{row.name} with seed {_listed(list(map(str, row.left_out)))}" for row in rows if row.left_out]
    if not found:
        return None
    return f"Trained or scored differently, so left out: {_listed(found)}. Run these seeds again."


def seen_note(rows: Sequence[Row]) -> str | None:
    """A warning if detectors were tested on images they were trained on."""
    counts = sorted({run.seen_before for row in rows for run in row.scored if run.seen_before})
    if not counts:
        return None
    images = f"{_listed(list(map(str, counts)))} of the test images"
    return f"{images} are among the training images: these scores measure memorisation."


def effort_note(rows: Sequence[Row]) -> str | None:
    """A warning if some were trained for longer than others."""
    epochs = sorted({row.training.epochs for row in rows if row.training})
    if len(epochs) < 2:
        return None
    return f"Trained for {_listed(list(map(str, epochs)))} epochs: some were just trained longer than others."


def grounds(rows: Sequence[Row]) -> dict[str, str]:
    """Signs that mark rows by what they were scored and trained on, by name; none if all are alike.

    Rows with the labels, or the patches, of most rows have no sign.
    """
    signs: dict[str, str] = {}
    for of, kinds in ((_labels, SCORED_ON), (_patches, TRAINED_ON)):
        found = {row.name: of(row) for row in rows if of(row) is not None}
        ranked = [ground for ground, _ in Counter(found.values()).most_common()]
        for name, ground in found.items():
            place = ranked.index(ground)
            signs[name] = signs.get(name, "") + (kinds[min(place, len(kinds)) - 1] if place else "")
    return signs


SCORED_ON, TRAINED_ON = "†‡§", "*°¤"  # one sign for each further set of labels or patches


def _labels(row: Row) -> tuple[str, str, str] | None:
    return (row.dataset, row.metrics.split, row.metrics.labels) if row.metrics else None


def _patches(row: Row) -> object:
    """A hash of all pixels and labels that a row was trained on."""
    return row.training.data.get("contents") if row.training else None


def label_note(rows: Sequence[Row]) -> str | None:
    """A warning if some were scored before the labels were edited, and others after."""
    signs = _used(rows, SCORED_ON)
    if not signs:
        return None
    return f"{signs}: scored on different labels than the rest, so not comparable with it. Score all again."


def patch_note(rows: Sequence[Row]) -> str | None:
    """A warning if some were trained before the images or labels were edited, and others after."""
    signs = _used(rows, TRAINED_ON)
    return f"{signs}: trained on different patches than the rest. Train all again." if signs else None


def _used(rows: Sequence[Row], kinds: str) -> str:
    used = "".join(grounds(rows).values())
    return ", ".join(sign for sign in kinds if sign in used)


RESAMPLING_NOTE = (
    "Intervals come from a paired bootstrap over images, 1,000 draws that are the same for all detectors,"
    " and over trainings if there are more (percentile method; Efron and Tibshirani, An Introduction to"
    " the Bootstrap, 1993)."
)


def pair_notes(found: Sequence[tuple[Row, Row]], sure: Uncertainty = UNKNOWN) -> tuple[str, ...]:
    """What the difference within a pair may be due to, besides the detector."""
    chances = [chance_note(*pair, sure) for pair in found]
    notes = [_pair_difference(first, second) for first, second in found]
    single = (
        "With only one training, another seed may change a difference by some points, which is not"
        " covered by its interval."
    )
    alone = any(len(row.scored) == 1 for pair in found for row in pair)
    compared = any(sure.comparison(*pair) for pair in found)
    return tuple(
        filter(None, [*chances, *notes, single if alone else None, RESAMPLING_NOTE if compared else None])
    )


def chance_note(first: Row, second: Row, sure: Uncertainty = UNKNOWN) -> str | None:
    """Which differences of a pair are no larger than chance would make them; None if not known."""
    found = sure.comparison(first, second)
    if found is None:
        return None
    known = {key: each for key, each in found.scores.items() if each.difference is not None}
    if not known:
        return None
    unseen = [key for key, each in known.items() if not each.seen]
    names = f"{first.name} and {second.name}"
    if not unseen:
        return f"{names} differ significantly (95 %) in {_listed(list(known))}."
    return f"{names}: no difference can be seen at 95 % in {_listed(unseen)}."


def trained_alike(one: Row, other: Row) -> bool:
    """Whether both were trained by the same recipe; False if not known."""
    if one.training is None or other.training is None:
        return False
    return all(getattr(one.training, key) == getattr(other.training, key) for key in RECIPE)


def _pair_difference(first: Row, second: Row) -> str | None:
    ours = [row.training for row in (first, second) if row.training]
    if len(ours) < 2:
        return None
    facts = {key.replace("_", " "): [getattr(each, key) for each in ours] for key in RECIPE}
    facts["pretraining"] = [bool(each.pretrained) for each in ours]
    facts["training data"] = [each.data for each in ours]
    unlike = [name for name, (one, other) in facts.items() if one != other]
    names = f"{first.name} and {second.name}"
    return f"{names} were not trained alike: different {_listed(unlike)}." if unlike else None


def input_note(rows: Sequence[Row]) -> str | None:
    """The input size of the FLOPs."""
    inputs = _unique(" × ".join(map(str, row.complexity.input)) for row in rows if row.complexity)
    return f"FLOPs are multiply-adds at an input of {_listed(inputs)}." if inputs else None


def recipe_notes(rows: Sequence[Row], published: Published) -> tuple[str, ...]:
    """Conditions of the published numbers, and how ours differ from them."""
    notes = (
        _conditions(rows, published),
        _accuracy_difference(rows, published),
        _cost_difference(rows, published),
        _recipe_difference([row for row in rows if row.training], published),
        *_unique(filter(None, (published.variants[row.name].note for row in rows))),
    )
    return tuple(filter(None, notes))


def _conditions(rows: Sequence[Row], published: Published) -> str:
    theirs = published.conditions
    pretraining = " or ".join(_unique(published.pretraining(row.name) for row in rows))
    return (
        f"Published: {theirs.title} {theirs.split} set, {pretraining} pretraining, "
        f"{theirs.augmentation}, {theirs.epochs} epochs, {theirs.image_size} px, "
        f"{theirs.images_per_step} images per step."
    )


def _test_set(dataset: str, metrics: Metrics) -> str:
    counts = f"{counted(metrics.images, 'image')}, {counted(metrics.objects, 'object')}"
    return f"{dataset} {metrics.split} ({counts})" if metrics.split else f"{dataset} ({counts})"


def _accuracy_difference(rows: Sequence[Row], published: Published) -> str | None:
    foreign = _unique(
        _test_set(row.dataset, row.metrics)
        for row in rows
        if row.metrics and not same_test_set(row, published)
    )
    return (
        f"Accuracy measured on {_listed(foreign)} is not comparable with published scores."
        if foreign
        else None
    )


def _cost_difference(rows: Sequence[Row], published: Published) -> str | None:
    """Whether parameters and FLOPs were counted on the same head and input."""
    classes = {row.class_count for row in rows} - {None}
    inputs = {row.complexity.input for row in rows if row.complexity}
    if not inputs:
        return None
    reasons = []
    if classes - {len(each) for each in published.classes.values()}:
        reasons.append("a different number of classes")
    if inputs != {STANDARD_INPUT}:
        reasons.append("a different input")
    if reasons:
        return f"Parameters and FLOPs cannot be compared: {_listed(reasons)}."
    return "Parameters and FLOPs are comparable."


def _recipe_difference(rows: Sequence[Row], published: Published) -> str | None:
    """How any of our trainings differs from the published ones."""
    theirs, ours = published.conditions, [row.training for row in rows if row.training]
    wanted = [(published.pretraining(row.name), row.training) for row in rows if row.training]
    missing = _unique(name for name, training in wanted if pretraining(training) != name)
    found = [f"no {name} pretraining" for name in missing]
    if any(theirs.augmentation not in each.augmentation for each in ours):
        found.append(f"no {theirs.augmentation}")
    for key in ("epochs", "image_size", "images_per_step"):
        values = sorted({getattr(each, key) for each in ours})
        if values and values != [getattr(theirs, key)]:
            found.append(f"{key.replace('_', ' ')} {_listed(list(map(str, values)))}")
    return f"Trained differently here: {'; '.join(found)}." if found else None


KNOWN_WEIGHTS = {"coco": "COCO", "imagenet": "ImageNet", "in1k": "ImageNet"}  # by a part of their name


def pretraining(training: Training) -> str:
    """``COCO`` or ``ImageNet`` for weights with that name, else the name of their file."""
    if training.pretrained is None:
        return "none"
    name = training.pretrained.lower()
    known = (label for part, label in KNOWN_WEIGHTS.items() if part in name)
    return next(known, Path(training.pretrained).name)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _listed(texts: Sequence[str]) -> str:
    """
    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))
