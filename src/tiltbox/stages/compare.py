"""Say which of two detectors is better, and whether the difference may be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltbox.defaults import RESAMPLES, RESAMPLING_SEED
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.labels import read_labels
from tiltbox.dota.results import refuse_data_file
from tiltbox.errors import DataError, OutputError
from tiltbox.files.atomic import require_file_place, require_writable, write_json
from tiltbox.metrics.bootstrap import Comparison, Difference, compare_runs
from tiltbox.report.formatting import aligned, percent, signed
from tiltbox.scores import MISSING
from tiltbox.stages.scored import label_files, read_scored

FEW_IMAGES = 20


def compare(
    first: Sequence[Path],
    second: Sequence[Path],
    labels: Path,
    out: Path | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = RESAMPLING_SEED,
    classes: Sequence[str] = DOTA_V1_CLASSES,
    data_file: Path | None = None,
) -> Comparison:
    """Compare two detectors by the results of their runs (:mod:`tiltbox.metrics.bootstrap`).

    Args:
        first, second: Results of each detector, as :func:`tiltbox.stages.evaluate.evaluate` takes them; one
            for each seed that the detector was trained with.
        labels: A labelTxt folder with one file for every image that counts.
        out: A JSON file to write: the differences are second - first, in fractions.
        resamples, seed: Number of resamples and seed of the bootstrap.
        classes: The classes to score, in the order of the result.
        data_file: The file with the class names of the categories of a predictions.json.

    Raises:
        DataError: A file is missing or malformed, detections are on an image without labels, or there are
            fewer than two images.
        OutputError: ``out`` cannot be written, or is one of the inputs.
    """
    files = label_files(labels)
    if len(files) < 2:
        raise DataError(
            labels, "has the labels of only one image, which cannot be resampled", "give more images"
        )
    if out is not None:
        _require_place(out, [*first, *second, labels])
    truth = {name: read_labels(path, classes) for name, path in files.items()}
    if not any(_is_json(path) for path in (*first, *second)):
        refuse_data_file(data_file)
    ours, theirs = (
        [read_scored(path, classes, truth, data_file if _is_json(path) else None) for path in runs]
        for runs in (first, second)
    )
    found = compare_runs(ours, theirs, truth, classes, resamples=resamples, seed=seed)
    if out is not None:
        write_json(out, comparison_record(found))
    return found


def _is_json(path: Path) -> bool:
    """Whether a path is a predictions file of Ultralytics, with categories in place of names."""
    return path.suffix.lower() == ".json"


def comparison_record(found: Comparison) -> dict[str, Any]:
    """The content of the JSON file."""
    return {
        "images": found.images,
        "runs": dict(zip(("first", "second"), found.runs, strict=True)),
        "resamples": found.resamples,
        "seed": found.seed,
        "scores": _scores(found.scores),
        "classes": {name: _scores(each) for name, each in found.classes.items()},
    }


def comparison_table(found: Comparison) -> str:
    """The comparison as text, in percent: all scores of all classes together, then AP50 of each class."""
    title = ("first", "second", "difference", "95 % interval")
    overall = [(key, *_cells(each)) for key, each in found.scores.items()]
    by_class = [(name, *_cells(each["AP50"])) for name, each in found.classes.items()]
    lines = aligned(("", *title, ""), overall)
    lines += ["", *aligned(("AP50 of", *title, ""), by_class), ""]
    return "\n".join([*lines, *notes(found)])


def notes(found: Comparison) -> list[str]:
    """How the intervals were made, and what they do not cover."""
    drawn = f"{found.resamples:,} draws of {found.images:,} images, the same for both"
    lines = [f"Intervals come from a paired bootstrap: {drawn} (seed {found.seed})."]
    if max(found.runs) > 1:
        lines[0] = lines[0].replace(f" (seed {found.seed})", f", and of their runs (seed {found.seed})")
    if min(found.runs) == 1:
        lines.append("If a detector has only one run, the variation between trainings is not included.")
    if found.images < FEW_IMAGES:
        lines.append(f"With only {found.images} images, intervals tend to be too narrow.")
    return lines


def _scores(each: Mapping[str, Difference]) -> dict[str, dict[str, float | None]]:
    return {
        key: {
            "first": score.first,
            "second": score.second,
            "difference": score.difference,
            "low": score.low,
            "high": score.high,
        }
        for key, score in each.items()
    }


def _cells(score: Difference) -> tuple[str, ...]:
    if score.difference is None:
        return (percent(score.first), percent(score.second), MISSING, MISSING, "no objects")
    figures = percent(score.first), percent(score.second), signed(100 * score.difference)
    if score.low is None or score.high is None:
        return *figures, MISSING, "too few resamples"
    interval = f"{signed(100 * score.low)} to {signed(100 * score.high)}"
    return *figures, interval, "" if score.seen else "no difference can be seen"


def _require_place(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse, before any work is done, a file that cannot be written or would damage another."""
    require_file_place(out)
    for path in inputs:
        if out.resolve() == path.resolve() or out.parent.resolve() == path.resolve():
            raise OutputError(
                out, f"is in {path}, which is an input of this command", "choose another file with --out"
            )
    require_writable(out.parent)
