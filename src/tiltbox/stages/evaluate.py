"""Score merged detections against the labels, by the rules of the DOTA devkit."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tiltbox.defaults import ABSENT_CLASSES
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images.listing import list_images
from tiltbox.dota.labels import Labels, read_labels
from tiltbox.dota.reading import image_name
from tiltbox.errors import DataError, OutputError
from tiltbox.files.atomic import atomic_file, require_file_place, require_writable, write_text
from tiltbox.layout import GALLERY, OUTCOMES
from tiltbox.metrics.angles import ELONGATED, MATCH_IOU, AngleError, angle_error
from tiltbox.metrics.bootstrap import Outcomes, outcomes_of
from tiltbox.metrics.confusion import Confusion, confusion
from tiltbox.metrics.outcomes_file import write_outcomes
from tiltbox.metrics.score import Curve, Task1Score, evaluate_task1
from tiltbox.provenance import LABEL_FILES, TASK1_FILES, Begun, beside
from tiltbox.records import AngleErrors, ClassMetrics, Metrics, write_record
from tiltbox.report.examples import gallery, varied
from tiltbox.report.pictures import example_pictures
from tiltbox.stages.scored import label_files, read_scored

# Beside the metrics.
SERVER_BLOCK, CURVES, CONFUSION = "dota.txt", "pr_curves.csv", "confusion.csv"
PICTURES = "pictures"  # a folder
log = logging.getLogger("tiltbox")

CURVE_THRESHOLDS = (0.5, 0.75)
CURVE_POINTS = 200


def evaluate(
    task1: Path,
    labels: Path,
    out: Path,
    *,
    dataset: str = "",
    split: str = "",
    absent_classes: str = ABSENT_CLASSES,
    classes: Sequence[str] = DOTA_V1_CLASSES,
    data_file: Path | None = None,
    images: Path | None = None,
    track: str | None = None,
) -> dict[str, Any]:
    """Score detections and write ``out``, with four or five further files beside it.

    ``dota.txt`` is the block that the DOTA server prints. ``pr_curves.csv`` has, for each class with objects
    and for IoU thresholds 0.5 and 0.75, at most 200 points of precision over recall. ``confusion.csv`` says
    what the objects of each class were taken for (:mod:`tiltbox.metrics.confusion`), and ``outcomes.parquet``
    has the outcome of each detection (:mod:`tiltbox.metrics.outcomes_file`). ``gallery.json`` contains a few
    of the ``images`` with their objects and detections (:class:`tiltbox.records.Gallery`).

    Args:
        task1: A folder or zip of ``Task1_<class>.txt`` of whole images, or Ultralytics' predictions.json.
        labels: A labelTxt folder; there is one file for every image that counts.
        out: The JSON file to write.
        dataset, split: Names, for the record.
        absent_classes: ``"null"`` leaves classes without objects out of the means, ``"zero"`` counts them as
            0.
        classes: The classes to score, in the order of the result.
        data_file: The file that says what the categories of a predictions.json are.
        images: The folder of the images; missing images are not in the gallery.
        track: MLflow experiment and run to log to, as ``experiment/run``; None logs nothing.

    Returns:
        The metrics, as they are written: AP as fractions, angle errors in degrees
        (:mod:`tiltbox.metrics.angles`), and the objects that count (difficult ones do not).

    Raises:
        DataError: A file is missing or malformed, or detections are on an image without labels.
        SettingsError: ``absent_classes`` is neither, ``data_file`` is given for Task1 files, or ``track``
            does not name a run.
        OutputError: ``out`` cannot be written, or would overwrite or be mistaken for something else.
    """
    begun, task1, labels, out = Begun("evaluate"), Path(task1), Path(labels), Path(out)
    if track:
        from tiltbox.stages import tracked  # only where it is needed: it takes long to import

        tracked.require_run(track)
    if images and not images.is_dir():
        raise DataError(images, "folder not found", "give the images of --labels with --images")
    files = label_files(labels)
    _require_place(out, labels, task1)
    begun.reads(labels, pattern=LABEL_FILES)
    truth = {name: read_labels(path, classes) for name, path in files.items()}
    found = read_scored(task1, classes, truth, data_file)
    begun.reads(task1, pattern=TASK1_FILES if task1.is_dir() else None)
    shown = _examples(images, truth) if images else {}
    begun.reads(*([data_file] if data_file else []), *shown.values())
    score = evaluate_task1(found, truth, classes, absent_classes=absent_classes)
    record = metrics_of(score, dataset, split, len(truth), _hash_of(files.values()))
    record = record.model_copy(update={"absent_classes": absent_classes})
    metrics = record.model_dump(mode="json")
    examples = None if images is None else gallery(shown, found, score)  # first, since it reads images
    write_text(out.with_name(SERVER_BLOCK), server_block(metrics))
    _write_curves(out.with_name(CURVES), score)
    write_outcomes(out.with_name(OUTCOMES), list(truth), outcomes_by_class(score))
    confused = confusion(found, score.objects)
    _write_confusion(out.with_name(CONFUSION), confused)
    if most := confused.largest(3):
        pairs = ", ".join(f"{name} for {other} ({count})" for name, other, count in most)
        log.info("most often taken for another class: %s", pairs)
    write_record(out, record)
    outputs = [out, *(out.with_name(name) for name in (SERVER_BLOCK, CURVES, CONFUSION, OUTCOMES))]
    out.with_name(GALLERY).unlink(missing_ok=True)  # of an earlier evaluation
    if examples is not None:
        outputs.append(out.with_name(GALLERY))
        write_record(outputs[-1], examples)
    settings = {"absent_classes": absent_classes, "classes": list(classes), "split": split}
    begun.record(beside(out), outputs, settings=settings)
    if track:
        tables = [out, beside(out), *(out.with_name(name) for name in (SERVER_BLOCK, CURVES, CONFUSION))]
        pictures = out.with_name(PICTURES)
        drawn = []
        if images:
            drawn = example_pictures(task1, labels, images, pictures, classes, data_file=data_file)
        tracked.log_scores(track, metrics, [*tables, *drawn], out.parent.parent)
    return metrics


def metrics_of(score: Task1Score, dataset: str, split: str, images: int, labels: str) -> Metrics:
    """The record of a score; ``labels`` is a hash of the labels that were scored against."""
    return Metrics(
        dataset=dataset,
        split=split,
        labels=labels,
        images=images,
        objects=sum(each.objects for each in score.classes.values()),
        iou_thresholds=score.thresholds,
        AP50=score.ap(0.5),
        AP75=score.ap(0.75),
        mAP=score.mean_ap,
        angle_error=_angle_errors(score.angle_error),
        angle_error_rule={"iou": MATCH_IOU, "aspect": ELONGATED},
        classes={
            name: ClassMetrics(
                AP50=each.ap(score.thresholds.index(0.5)),
                AP75=each.ap(score.thresholds.index(0.75)),
                mAP=each.mean_ap,
                angle_error=_angle_errors(angle_error([each.angle_errors])),
                objects=each.objects,
                detections=each.detections,
            )
            for name, each in score.classes.items()
        },
    )


def _angle_errors(found: AngleError) -> AngleErrors:
    return AngleErrors(**asdict(found))


def outcomes_by_class(score: Task1Score) -> dict[str, Outcomes]:
    """What resampling needs to know of each class."""
    return {
        name: outcomes_of(each.matches, each.places, score.objects[name])
        for name, each in score.classes.items()
    }


def server_block(metrics: Mapping[str, Any]) -> str:
    """The text that the DOTA server prints for Task 1; ``nan`` if there is no AP."""
    per_class = ", ".join(f"{name}:{_fraction(row['AP50'])}" for name, row in metrics["classes"].items())
    return (
        "This is your evaluation result for task 1 (VOC metrics):\n"
        "\n"
        f"mAP: {_fraction(metrics['AP50'])}\n"
        f"ap of each class: {per_class}\n"
        "COCO style result:\n"
        "\n"
        f"AP50: {_fraction(metrics['AP50'])}\n"
        f"AP75: {_fraction(metrics['AP75'])}\n"
        f"mAP: {_fraction(metrics['mAP'])}\n"
    )


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The metrics as a text table: AP in percent, median and 90th percentile of the angle error in degrees.

    The last row has the means of AP; its other figures are of all objects and detections together.

    >>> angle = {"median": 2.25, "p90": 10.0, "objects": 3}
    >>> row = {"AP50": 0.5, "AP75": 0.25, "mAP": 0.3, "angle_error": angle, "objects": 4}
    >>> print(metrics_table({**row, "classes": {"ship": {**row, "detections": 9}}}))
    class   AP50   AP75    mAP  angle°  p90°  objects  detections
    ship   50.00  25.00  30.00     2.2  10.0        4           9
    mean   50.00  25.00  30.00     2.2  10.0        4           9
    """
    rows = metrics["classes"]
    mean = {**metrics, "detections": sum(row["detections"] for row in rows.values())}
    width = max(map(len, [*rows, "class"]))
    lines = [f"{'class':<{width}}   AP50   AP75    mAP  angle°  p90°  objects  detections"]
    for name, row in [*rows.items(), ("mean", mean)]:
        aps = "  ".join(f"{_percent(row[key]):>5}" for key in ("AP50", "AP75", "mAP"))
        median, p90 = (_degrees(row["angle_error"][key]) for key in ("median", "p90"))
        counts = f"{row['objects']:>7}  {row['detections']:>10}"
        lines.append(f"{name:<{width}}  {aps}  {median:>6}  {p90:>4}  {counts}")
    return "\n".join(lines)


def _fraction(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _degrees(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _hash_of(files: Iterable[Path]) -> str:
    """A hash that tells whether two scores were measured on the same labels."""
    found = hashlib.md5()
    for path in sorted(files):
        found.update(f"{path.name}\n".encode() + hashlib.md5(path.read_bytes()).digest())
    return found.hexdigest()[:12]


def _examples(images: Path, truth: Mapping[str, Labels]) -> dict[str, Path]:
    """The images for the gallery, by name: the same ones for every detector."""
    files = {image_name(path): path for path in list_images(images)}
    return {name: files[name] for name in varied(files, truth)}


def _require_place(out: Path, labels: Path, task1: Path) -> None:
    """Refuse, before any work is done, a file that cannot be written or would damage another."""
    require_file_place(out)
    inside = out.parent.resolve() == task1.resolve() and out.name.startswith("Task1")
    if inside or out.resolve() == task1.resolve():
        raise OutputError(out, "is the input of this command", "choose another file with --out")
    if out.name in (SERVER_BLOCK, CURVES, CONFUSION, OUTCOMES, GALLERY):
        raise OutputError(out, "is the name of another result", "choose another with --out")
    if out.parent.resolve() == labels.resolve():
        problem = f"is in the folder of labels, where {SERVER_BLOCK} would be mistaken for one of them"
        raise OutputError(out, problem, "choose another folder with --out")
    require_writable(out.parent)


def _write_confusion(path: Path, found: Confusion) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["object", *found.classes, "missed"])
        for name, row in zip([*found.classes, "nothing"], found.counts.tolist(), strict=True):
            writer.writerow([name, *row])


def _write_curves(path: Path, score: Task1Score) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "threshold", "recall", "precision", "score"])
        writer.writerows(_curve_rows(score))


def _curve_rows(score: Task1Score) -> Iterator[Iterable[str]]:
    for name, each in score.classes.items():
        for threshold in CURVE_THRESHOLDS if each.objects else ():
            for recall, precision, value in _thinned(each.matches.curve(threshold)):
                yield name, f"{threshold:.2f}", f"{recall:.6f}", f"{precision:.6f}", f"{value:.6f}"


def _thinned(curve: Curve) -> np.ndarray:
    """At most ``CURVE_POINTS`` points (recall, precision, score): evenly over recall, and the last one."""
    points = np.stack([curve.recall, curve.precision, curve.scores], axis=1)
    if len(points) > CURVE_POINTS:
        reached = np.linspace(0, curve.recall[-1], CURVE_POINTS - 1)
        points = points[np.unique([*np.searchsorted(curve.recall, reached), len(points) - 1])]
    return points
