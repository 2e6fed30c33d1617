"""The tables of the leaderboard, from collected rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

from tiltbox.provenance import SUFFIX
from tiltbox.records import Training
from tiltbox.report.cells import Cell, Table, difference, mark
from tiltbox.report.collect import Row, class_names
from tiltbox.report.comparison import (
    RESAMPLING_NOTE,
    accuracy_note,
    angle_note,
    chance_note,
    effort_note,
    grounds,
    input_note,
    label_note,
    left_out_note,
    pair_notes,
    pairs,
    patch_note,
    pretraining,
    recipe_notes,
    same_test_set,
    seen_note,
)
from tiltbox.report.formatting import aligned, degrees, interval, percent
from tiltbox.report.uncertainty import UNKNOWN, Uncertainty
from tiltbox.scores import ACCURACIES, ANGLES, COSTS, FIGURES, MEASURED, MISSING, Figure
from tiltbox.settings.published import Published


def model_table(rows: Sequence[Row], out: Path, sure: Uncertainty = UNKNOWN) -> Table:
    """The columns of the published model table; files are linked relative to the folder ``out``."""
    signs = grounds(rows)
    cells = [_model_row(row, out, signs.get(row.name, "")) for row in rows]
    for column, figure in enumerate(ACCURACIES, start=3):
        if best := _best(rows, figure, sure):
            cells[rows.index(best)] = mark(cells[rows.index(best)], column)
    scored = sum(row.metrics is not None for row in rows)
    bold = ", in bold if one is better than all others" if scored > 1 else ""
    return Table(
        f"Accuracy in percent, angle errors in degrees{bold}; "
        "parameters in millions, multiply-adds in billions; batch size as processes × images",
        (
            "model",
            "pretrain",
            "aug",
            *(figure.label for figure in FIGURES),
            "batch size",
            "config",
            "checkpoint",
            "record",
        ),
        tuple(cells),
        words=3,
        notes=tuple(filter(None, (note(rows) for note in MODEL_NOTES))),
    )


def published_table(rows: Sequence[Row], published: Published) -> Table | None:
    """Published numbers beside ours; None if none of the variants was published."""
    known = [row for row in rows if row.name in published.variants]
    if not known:
        return None
    names = [figure.label for figure in (*COSTS, *ACCURACIES)]
    return Table(
        "Each figure as measured here and as published",
        ("model", *(f"{name}, {source}" for name in names for source in ("ours", "published"))),
        tuple(_published_row(row, published) for row in known),
        notes=recipe_notes(known, published),
    )


def pair_table(rows: Sequence[Row], sure: Uncertainty = UNKNOWN) -> Table | None:
    """Each detector that is compared with another, and the difference; None if none is."""
    found = pairs(rows)
    if not found:
        return None
    return Table(
        "Detectors that are compared, and the difference: the second minus the first",
        ("model", *(figure.label for figure in FIGURES)),
        tuple(line for pair in found for line in _pair_rows(*pair, sure)),
        group=4,
        sortable=False,
        notes=(
            "Differences of accuracy are in percentage points, of angles in degrees.",
            *pair_notes(found, sure),
        ),
    )


def run_table(rows: Sequence[Row], sure: Uncertainty = UNKNOWN) -> Table | None:
    """Each score with its interval, and each training on its own; None before any could be resampled."""
    known = [row for row in rows if any(sure.ranges(row).values())]
    if not known:
        return None
    lines = []
    for row in known:
        ranges = sure.ranges(row)
        means = (Cell(_spread(row, figure)) for figure in ACCURACIES)
        intervals = (Cell(interval(ranges[figure.key])) for figure in ACCURACIES)
        seeds = ", ".join(str(run.seed) for run in row.scored if run.training) or MISSING
        lines.append((Cell(row.name), Cell(seeds), *means, *intervals))
        lines += [_seed_row(row, run) for run in row.runs] if len(row.runs) > 1 else []
    return Table(
        "Accuracy in percent: mean ± standard deviation over trainings, and the 95 % interval over images"
        " (and over trainings, if there is more than one)",
        ("model", "seeds", *(f.label for f in ACCURACIES), *(f"{f.label}, interval" for f in ACCURACIES)),
        tuple(lines),
        words=2,
        notes=(RESAMPLING_NOTE,),
    )


def class_table(rows: Sequence[Row], published: Published) -> Table | None:
    """AP50 of each class, with published columns if they are comparable; None before any score."""
    scored = [row for row in rows if row.metrics]
    if not scored:
        return None
    compared = [row.name for row in scored if row.name in published.classes and same_test_set(row, published)]
    columns: list[tuple[str, Callable[[str], float | None]]] = [(row.name, row.class_ap50) for row in scored]
    columns += [(f"{name}, published", published.classes[name].get) for name in compared]
    lines = [_class_row(name, [ap50(name) for _, ap50 in columns]) for name in class_names(rows)]
    means = [row.figure("AP50") for row in scored] + [_fraction(published, name) for name in compared]
    return Table(
        "AP50 in percent",
        ("class", *(name for name, _ in columns)),
        (*lines, _class_row("mean", means)),
        total=True,
        notes=(f"{MISSING}: no objects of that class.",) if _absent(scored) else (),
    )


def angle_table(rows: Sequence[Row]) -> Table | None:
    """The angle error of each class and of all objects together; None before any was measured."""
    measured = [row for row in rows if row.figure("angle_median") is not None]
    if not measured:
        return None
    lines = [
        (name, [row.class_figure(name, figure.key) for row in measured for figure in ANGLES])
        for name in class_names(measured)
    ]
    lines.append(("all", [row.figure(figure.key) for row in measured for figure in ANGLES]))
    cells = tuple((Cell(name), *(Cell(degrees(value)) for value in values)) for name, values in lines)
    absent = any(cell.text == MISSING for row in cells for cell in row)
    return Table(
        "Angle error in degrees, lower is better",
        ("class", *(f"{row.name}, {figure}" for row in measured for figure in ("median", "p90"))),
        cells,
        total=True,
        notes=(f"{MISSING}: no elongated object of that class was found.",) if absent else (),
    )


def training_table(rows: Sequence[Row]) -> Table | None:
    """How each variant was trained, one column per variant; None before any training."""
    trained = [row for row in rows if row.training]
    if not trained:
        return None
    trainings = [row.training for row in rows if row.training]
    lines = [
        (Cell(label), *(Cell(fact(each)) for each in trainings)) for label, fact in TRAINING_FACTS.items()
    ]
    seeds = (Cell("seeds"), *(Cell(", ".join(map(str, row.seeds))) for row in trained))
    columns = ("setting", *(row.name for row in trained))
    return Table("How each variant was trained", columns, (*lines, seeds), sortable=False)


def source_table(rows: Sequence[Row], out: Path) -> Table | None:
    """Where the figures come from: a line for each training, files linked relative to the folder ``out``."""
    lines = [_source_row(run, run.training, out) for row in rows for run in row.runs if run.training]
    if not lines:
        return None
    return Table(
        "What each detector was trained with, and its files",
        ("model", "seed", "commit", "patches", "settings", "processor", "started (UTC)", "time", *FILES),
        tuple(lines),
        words=7,
        notes=(SOURCE_NOTE,),
    )


def terminal_table(rows: Sequence[Row], sure: Uncertainty = UNKNOWN) -> str:
    """The figures in plain text: all variants, then the difference of each pair, and notes on chance."""
    columns = ("model", *(figure.short for figure in FIGURES))
    models = [(row.name, *(_spread(row, figure) for figure in FIGURES)) for row in rows]
    changes = [
        (label, *(_change(*pair, figure).text for figure in FIGURES)) for label, pair in _labelled(rows)
    ]
    header, *lines = aligned(columns, models + changes)
    rule = "─" * max(map(len, [header, *lines]))
    blocks = [[header], lines[: len(models)], lines[len(models) :]]
    notes = [note for _, pair in _labelled(rows) if (note := chance_note(*pair, sure))]
    return f"\n{rule}\n".join("\n".join(block) for block in [*blocks, notes] if block)


def augmentation(training: Training) -> str:
    return ", ".join(training.augmentation) or "none"


def relative(path: Path, out: Path) -> str:
    """``path`` as seen from the folder ``out``, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), Path(out).resolve())).as_posix()


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(754), duration(93784)
    ('42 s', '12 min 34 s', '26 h 3 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# Files that a training leaves in its folder, by their names in the table.
FILES = {
    "config": "train/config.py",
    "losses": "train/history.csv",
    "weights": "train/checkpoint.pth",
    "detections": "predict/detections.parquet",
    "Task1": "merge/Task1.zip",
    "scores": "evaluate/metrics.json",
    "curves": "evaluate/pr_curves.csv",
    "confusion": "evaluate/confusion.csv",
    "record": f"train/{SUFFIX}",
}
SOURCE_NOTE = (
    "A + after a commit: files differed from it. The same hash under patches means the same pixels and"
    " labels, under settings the same resolved settings. Records contain the command, all versions, and a"
    " hash of every file that was read and written; 'tiltbox verify' checks them back to the images."
)

MODEL_NOTES = (
    *(accuracy_note, left_out_note, seen_note, angle_note),
    *(label_note, patch_note, effort_note, input_note),
)

TRAINING_FACTS: dict[str, Callable[[Training], str]] = {
    "pretraining": pretraining,
    "augmentation": augmentation,
    "epochs": lambda t: str(t.epochs),
    "steps": lambda t: f"{t.steps:,}".replace(",", "\u202f"),
    "images per step": lambda t: str(t.images_per_step),
    "processes": lambda t: str(t.processes),
    "learning rate": lambda t: f"{t.learning_rate:g}",
    "image size": lambda t: f"{t.image_size} px",
    "device": lambda t: t.device,
    "time": lambda t: duration(t.seconds),
    "torch": lambda t: t.versions.get("torch", MISSING),
    "schedule": lambda t: (t.schedule_choice or "as set").removeprefix("schedule "),
    "settings": lambda t: t.config_hash,
    "commit": lambda t: t.git_commit,
}


def _model_row(row: Row, out: Path, sign: str) -> tuple[Cell, ...]:
    t = row.training
    return (
        Cell(f"{row.name} {sign}".rstrip()),
        Cell(pretraining(t) if t else MISSING),
        Cell(augmentation(t) if t else MISSING),
        *(Cell(_spread(row, figure)) for figure in FIGURES),
        Cell(f"{t.processes} × {t.images_per_step // t.processes}" if t else MISSING),
        _link(row.config, out),
        _link(row.checkpoint, out),
        _link(row.record, out, "scores"),
    )


def _source_row(run: Row, facts: Training, out: Path) -> tuple[Cell, ...]:
    record = run.provenance
    commit = facts.git_commit.replace("-dirty", "+")
    machine = [record.gpu or record.processor, record.kernels] if record else [facts.device]
    seconds = record.seconds if record else facts.seconds
    return (
        Cell(run.name),
        Cell(str(facts.seed)),
        Cell(commit),
        Cell(str(facts.data.get("contents", MISSING))[:12]),
        Cell(facts.config_hash),
        Cell(" ".join(filter(None, machine))),
        Cell(record.started[:16].replace("T", " ") if record else MISSING),
        Cell(duration(seconds), sort=seconds),
        *(_link(run.file(place), out, label) for label, place in FILES.items()),
    )


def _link(path: Path | None, out: Path, text: str | None = None) -> Cell:
    return Cell(MISSING) if path is None else Cell(text or path.name, link=quote(relative(path, out)))


def _published_row(row: Row, published: Published) -> tuple[Cell, ...]:
    theirs = published.variants[row.name]
    cells = [Cell(row.name)]
    for figure in (*COSTS, *ACCURACIES):
        value = getattr(theirs, figure.key)
        cells += [Cell(_shown(row, figure)), Cell(MISSING if value is None else f"{value:.2f}")]
    return tuple(cells)


def _pair_rows(first: Row, second: Row, sure: Uncertainty) -> list[tuple[Cell, ...]]:
    lines = [(Cell(row.name), *(Cell(_spread(row, f)) for f in FIGURES)) for row in (first, second)]
    changes = (_change(first, second, figure, sure) for figure in FIGURES)
    found = sure.comparison(first, second)
    ranges = [(found.scores[f.key].low, found.scores[f.key].high) if found else None for f in ACCURACIES]
    intervals = (Cell(interval(each, signs=True)) for each in ranges)
    rest = [Cell("")] * (len(FIGURES) - len(ACCURACIES))
    return [*lines, (Cell("difference"), *changes), (Cell("95 % interval"), *intervals, *rest)]


def _seed_row(row: Row, run: Row) -> tuple[Cell, ...]:
    scores = (Cell(_shown(run, figure)) for figure in ACCURACIES)
    return Cell(f"{row.name}, seed {run.seed}"), Cell(str(run.seed)), *scores, *[Cell("")] * len(ACCURACIES)


def _best(rows: Sequence[Row], figure: Figure, sure: Uncertainty) -> Row | None:
    """The row whose score is better than that of any other, as far as can be seen."""
    scores = [(row, score) for row in rows if (score := row.figure(figure.key)) is not None]
    if len(scores) < 2:
        return None
    (best, _), *others = sorted(scores, key=lambda each: each[1], reverse=True)
    return best if all(sure.seen(other, best, figure.key) for other, _ in others) else None


def _labelled(rows: Sequence[Row]) -> list[tuple[str, tuple[Row, Row]]]:
    """Each pair under both names, the beginning that they share said once."""
    return [(_difference_label(*pair), pair) for pair in pairs(rows)]


def _difference_label(first: Row, second: Row) -> str:
    """
    >>> _difference_label(Row("yoloms-xs-previous", "mini"), Row("yoloms-xs-current", "mini"))
    'yoloms-xs: current − previous'
    >>> _difference_label(Row("yolov8-n", "mini"), Row("yolov8-n-ms", "mini"))
    'yolov8-n-ms − yolov8-n'
    """
    words = [row.name.split("-") for row in (first, second)]
    shared = list(takewhile(lambda pair: len(set(pair)) == 1, zip(*words, strict=False)))
    rests = ["-".join(each[len(shared) :]) for each in words]
    if not shared or not all(rests):
        return f"{second.name} − {first.name}"
    return f"{'-'.join(word for word, _ in shared)}: {rests[1]} − {rests[0]}"


def _class_row(name: str, values: list[float | None]) -> tuple[Cell, ...]:
    return Cell(name), *(Cell(percent(value), share=value) for value in values)


def _absent(rows: Sequence[Row]) -> bool:
    scored = (row.metrics for row in rows if row.metrics)
    return any(each.AP50 is None for metrics in scored for each in metrics.classes.values())


def _fraction(published: Published, name: str) -> float | None:
    value = published.variants[name].AP50
    return None if value is None else value / 100


def _shown(row: Row, figure: Figure) -> str:
    return figure.text(row.figure(figure.key))


def _spread(row: Row, figure: Figure) -> str:
    """Mean ± standard deviation over runs, or the only figure."""
    spread = row.spread(figure.key) if figure in MEASURED else None
    return _shown(row, figure) if spread is None else f"{_shown(row, figure)} ± {figure.text(spread)}"


def _change(first: Row, second: Row, figure: Figure, sure: Uncertainty = UNKNOWN) -> Cell:
    """The difference of the figures as they are shown, so that a reader who subtracts them finds the same.

    It has a colour if it is exact, or larger than chance would make it.
    """
    before, after = _shown(first, figure), _shown(second, figure)
    change = None if MISSING in (before, after) else float(after) - float(before)
    cell = difference(change, better=figure.better, decimals=figure.decimals)
    exact = figure in COSTS or sure.seen(first, second, figure.key)
    return cell if exact else replace(cell, kind="")
