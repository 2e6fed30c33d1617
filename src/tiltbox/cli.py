"""The command line: one verb per stage. Stages are imported when they run, so ``--help`` is instant."""

from __future__ import annotations

import argparse
import logging
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbox import __version__

if TYPE_CHECKING:
    from tiltbox.settings.schedules import Schedule

log = logging.getLogger("tiltbox")

TRACKING_PATIENCE = 60.0  # seconds for MLflow to take scores, which are in their files anyway


def parser() -> ArgumentParser:
    top = ArgumentParser(
        prog="tiltbox",
        description="Reproducible training and comparison of oriented object detectors on aerial images.",
        epilog="Errors end with code 1 and one line that says what to do; wrong usage ends with code 2.",
    )
    top.add_argument("--version", action="version", version=f"tiltbox {__version__}")
    verbs = top.add_subparsers(dest="stage", metavar="STAGE", required=True)
    stages = _download, _split, _train, _predict, _merge, _evaluate, _complexity, _report
    for add in (*stages, _compare, _verify, _status, _tracking, _track_results, _weights):
        add(verbs)
    return top


def _verb(verbs, name: str, help: str, run) -> ArgumentParser:
    verb = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.set_defaults(run=run)
    return verb


def _at_least(least: int):
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ArgumentTypeError(f"'{text}' is not an integer of at least {least}")
        return int(text)

    return count


def _gpu_count(text: str) -> int | None:
    return None if text == "auto" else _at_least(0)(text)


def _out(verb: ArgumentParser, metavar: str, help: str) -> None:
    verb.add_argument("--out", type=Path, required=True, metavar=metavar, help=help)


def _dataset(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--dataset", metavar="DATASET", help="use the classes of this dataset (default: DOTA-v1.0)"
    )


def _names(verb: ArgumentParser) -> None:
    help = "for a predictions.json: its model's data file, which gives the class name of each category id"
    verb.add_argument("--names", type=Path, metavar="DATA.yaml", help=f"{help} (default: DOTAv1.yaml)")


def _variant(verb: ArgumentParser) -> None:
    verb.add_argument(
        "variant", metavar="VARIANT", help="a row of configs/variants.yaml, e.g. yoloms-xs-current"
    )


def _track(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--track", metavar="EXPERIMENT/RUN", help="log to MLflow (mlflow.db here, or MLFLOW_TRACKING_URI)"
    )


def _gpus(verb: ArgumentParser, default: str) -> None:
    verb.add_argument(
        "--gpus", type=_gpu_count, metavar="N", help=f"GPUs to use, 0 for the CPU (default: auto, {default})"
    )


def _schedule_option(verb: ArgumentParser) -> None:
    help = "a schedule, or auto: one that fits patches and GPUs (default: that of the dataset, or auto)"
    verb.add_argument("--schedule", metavar="NAME_OR_FILE", help=help)


# download ---------------------------------------------------------------------------------------------


def _download(verbs) -> None:
    verb = _verb(verbs, "download", "download and verify a dataset, or render the mini set", _run_download)
    verb.add_argument("dataset", metavar="DATASET", help="mini, dota, or the path of a dataset's YAML file")
    _out(verb, "DIR", "folder for train/, val/ and test/")
    verb.add_argument(
        "--archives", type=Path, metavar="DIR", help="folder with archives that you already have"
    )


def _run_download(options: Namespace) -> None:
    from tiltbox.settings.datasets import find_dataset
    from tiltbox.stages.download import download

    file = Path(options.dataset) if options.dataset.endswith((".yaml", ".yml")) else None
    manifest = download(find_dataset(options.dataset), options.out, archives=options.archives, file=file)
    for name, counts in manifest["splits"].items():
        objects = "no labels" if counts["objects"] is None else _number(counts["objects"], "object")
        print(f"{name}: {_number(counts['images'], 'image')}, {objects}")


# split ------------------------------------------------------------------------------------------------


def _split(verbs) -> None:
    verb = _verb(verbs, "split", "cut images and labels into overlapping patches", _run_split)
    verb.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help="folder with images/ and labelTxt/"
    )
    _out(verb, "DIR", "folder for images/, annfiles/ and manifest.json")
    verb.add_argument(
        "--size", type=_at_least(1), default=1024, metavar="PX", help="side of a patch (default: 1024)"
    )
    verb.add_argument(
        "--overlap", type=_at_least(0), default=200, metavar="PX", help="overlap of patches (default: 200)"
    )
    verb.add_argument(
        "--rates", nargs="+", type=float, default=[1.0], metavar="R", help="scales to cut at (default: 1.0)"
    )
    verb.add_argument(
        "--iof",
        type=float,
        default=0.7,
        metavar="F",
        help="least share of an object to keep it (default: 0.7)",
    )
    verb.add_argument("--workers", type=_at_least(1), metavar="N", help="processes (default: all cores)")
    _dataset(verb)


def _run_split(options: Namespace) -> None:
    from tiltbox.layout import LEFT_OUT
    from tiltbox.stages.split import split

    manifest = split(
        options.sources,
        options.out,
        size=options.size,
        overlap=options.overlap,
        rates=tuple(options.rates),
        iof=options.iof,
        workers=options.workers,
        classes=_classes(options.dataset),
    )
    objects = f" with {_number(manifest['objects_in_patches'], 'object')}" if manifest["labelled"] else ""
    patches, images = _number(manifest["patches"], "patch", "patches"), _number(manifest["images"], "image")
    print(f"{patches}{objects} of {images}")
    listed = f"listed in {options.out / LEFT_OUT}"
    _warn_of(manifest["objects_without_area"], "object", f"without area left out, {listed}")
    _warn_of(manifest["objects_outside_images"], "object", f"outside the image left out, {listed}")
    remedy = "raise --overlap, cut with a larger --size, or add a rate below 1, such as --rates 1.0 0.5"
    cut = f"left out because every patch cuts off too much, {listed}; {remedy}"
    _warn_of(manifest["objects_cut_by_every_patch"], "object", cut)
    black = "nearly black: only the high byte of 16-bit samples is kept, so stretch them to 8 bits first"
    _warn_of(manifest["nearly_black_images"], "image", black)


# train ------------------------------------------------------------------------------------------------


def _train(verbs) -> None:
    verb = _verb(verbs, "train", "train a variant on GPUs or the CPU", _run_train)
    _variant(verb)
    verb.add_argument(
        "--patches", type=Path, required=True, metavar="DIR", help="labelled patches from split"
    )
    _out(verb, "DIR", "folder for checkpoint.pth, config.py, history.csv and train.json")
    help = "other labelled patches to score it on, as often as the schedule says (default: none)"
    verb.add_argument("--validate", type=Path, metavar="DIR", help=help)
    _gpus(verb, "as many as the schedule says, or 0 on a machine without any")
    verb.add_argument(
        "--processes", type=_at_least(1), metavar="N", help="training processes on the CPU (default: 1)"
    )
    _schedule_option(verb)
    help = "seed of weights, order and augmentation (default: that of the schedule, which is 0 unless set)"
    verb.add_argument("--seed", type=_at_least(0), metavar="N", help=help)
    help = "weights to start from, in place of the variant's; random: none, whatever the schedule says"
    verb.add_argument("--start", metavar="FILE_OR_URL", help=f"{help} (for a file of that name: ./random)")
    verb.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resume a killed training from its last epoch, or delete all it left (default: resume)",
    )
    _dataset(verb)
    _track(verb)


def _run_train(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.train import train

    train(
        options.variant,
        find_variant(options.variant),
        _schedule(options),
        options.patches,
        options.out,
        classes=_classes(options.dataset),
        gpus=options.gpus,
        processes=options.processes,
        start=options.start,
        seed=options.seed,
        resume=options.resume,
        track=options.track,
        validate=options.validate,
    )


def _schedule(options: Namespace) -> Schedule | None:
    """The chosen schedule; None for auto."""
    from tiltbox.settings.auto import AUTO
    from tiltbox.settings.datasets import find_dataset
    from tiltbox.settings.schedules import find_schedule

    own = find_dataset(options.dataset).schedule if options.dataset else AUTO
    name = options.schedule or own
    return None if name == AUTO else find_schedule(name)


# predict ----------------------------------------------------------------------------------------------


def _predict(verbs) -> None:
    verb = _verb(verbs, "predict", "detect objects on all patches of a split", _run_predict)
    _variant(verb)
    verb.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE_OR_URL",
        help="trained weights of the variant; published: those that its authors trained on DOTA-v1.0",
    )
    verb.add_argument("--patches", type=Path, required=True, metavar="DIR", help="patches from split")
    _out(verb, "FILE.parquet", "detections, in pixels of the patches")
    help = "side to resize patches to (default: that of the checkpoint's training, else that of the schedule)"
    verb.add_argument("--image-size", type=_at_least(32), metavar="PX", help=help)
    _schedule_option(verb)
    verb.add_argument(
        "--batch", type=_at_least(1), default=8, metavar="N", help="patches at a time (default: 8)"
    )
    _gpus(verb, "all")
    _dataset(verb)


def _run_predict(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant, published_checkpoint
    from tiltbox.settings.auto import for_prediction
    from tiltbox.stages.predict import predict

    schedule = _schedule(options) or for_prediction()
    count = predict(
        options.variant,
        find_variant(options.variant),
        published_checkpoint(options.variant) if options.checkpoint == "published" else options.checkpoint,
        options.patches,
        options.out,
        classes=_classes(options.dataset),
        image_size=options.image_size,
        unknown_size=schedule.image_size,
        gpus=options.gpus,
        threads=schedule.threads,
        batch=options.batch,
    )
    print(_number(count, "detection"))


# merge ------------------------------------------------------------------------------------------------


def _merge(verbs) -> None:
    verb = _verb(verbs, "merge", "merge patch detections into whole images, with per-class NMS", _run_merge)
    verb.add_argument(
        "detections",
        type=Path,
        metavar="DETECTIONS",
        help="a detections.parquet, a folder or zip of Task1 files, or Ultralytics' predictions.json",
    )
    _out(verb, "DIR", "folder for Task1_<class>.txt and Task1.zip")
    verb.add_argument(
        "--iou", type=float, default=0.1, metavar="T", help="suppress above this IoU (default: 0.1)"
    )
    _names(verb)
    _dataset(verb)


def _run_merge(options: Namespace) -> None:
    from tiltbox.stages.merge import merge

    counts = merge(
        options.detections,
        options.out,
        iou=options.iou,
        classes=_classes(options.dataset),
        names=options.names,
    )
    found, images = _number(counts["detections"], "detection"), _number(counts["images"], "image")
    print(f"{counts['kept']:,} of {found} on {images} kept")
    _warn_of(counts["not_finite"], "detection", "with a number that is NaN, infinite or beyond 1e7 left out")


# evaluate ---------------------------------------------------------------------------------------------


def _evaluate(verbs) -> None:
    verb = _verb(verbs, "evaluate", "score merged detections by the rules of the DOTA devkit", _run_evaluate)
    verb.add_argument(
        "task1",
        type=Path,
        metavar="TASK1_DIR",
        help="folder or zip of Task1_<class>.txt, or Ultralytics' predictions.json of whole images",
    )
    verb.add_argument("--labels", type=Path, required=True, metavar="DIR", help="labelTxt folder of images")
    _out(verb, "FILE.json", "metrics; dota.txt, pr_curves.csv, confusion.csv, outcomes.parquet go beside it")
    verb.add_argument("--split", default="", metavar="NAME", help="name of the split, for the record")
    verb.add_argument(
        "--absent-classes",
        choices=("null", "zero"),
        default="null",
        help="classes without objects: left out of the mean, or 0 as in the devkit (default: null)",
    )
    verb.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images, to keep some with their boxes in gallery.json",
    )
    _names(verb)
    _dataset(verb)
    _track(verb)


def _run_evaluate(options: Namespace) -> None:
    from tiltbox.errors import DataError
    from tiltbox.stages.evaluate import evaluate, metrics_table

    if options.track:
        from tiltbox import tracking

        tracking.require_target(options.track)
        tracking.require_experiment(options.track)
    if options.images and not options.images.is_dir():
        raise DataError(options.images, "folder not found", "give the images of --labels with --images")
    metrics = evaluate(
        options.task1,
        options.labels,
        options.out,
        dataset=_name(options.dataset),
        split=options.split,
        absent_classes=options.absent_classes,
        classes=_classes(options.dataset),
        names=options.names,
        images=options.images,
    )
    if options.track:
        _track_evaluation(options, metrics)
    print(metrics_table(metrics))


def _track_evaluation(options: Namespace, metrics: dict) -> None:
    from tiltbox import tracking
    from tiltbox.provenance import beside
    from tiltbox.report.pictures import example_pictures
    from tiltbox.stages.evaluate import CONFUSION, CURVES, SERVER_BLOCK

    folder = options.out.parent
    tables = [options.out, beside(options.out)]
    tables += [folder / name for name in (SERVER_BLOCK, CURVES, CONFUSION)]
    pictures = []
    if options.images:
        classes = _classes(options.dataset)
        pictures = example_pictures(
            options.task1, options.labels, options.images, folder / "pictures", classes, names=options.names
        )
    training = folder.parent / "train"

    def log() -> None:
        if tracking.has_journal(training):  # the server may have been down while it ran
            tracking.catch_up(training)
        tracking.log_evaluation(options.track, metrics, [*tables, *pictures])

    tracking.within(TRACKING_PATIENCE, "these scores (`tiltbox track` logs them later)", log)


# compare ----------------------------------------------------------------------------------------------


def _compare(verbs) -> None:
    help = "say which of two detectors is better, and whether the difference could be chance"
    verb = _verb(verbs, "compare", help, _run_compare)
    results = "results as evaluate takes them; with more than one seed, one for each, joined by commas"
    verb.add_argument("first", type=_runs, metavar="A", help=results)
    verb.add_argument("second", type=_runs, metavar="B", help="the same for the other detector")
    verb.add_argument("--labels", type=Path, required=True, metavar="DIR", help="labelTxt folder of images")
    verb.add_argument("--out", type=Path, metavar="FILE.json", help="write the comparison, as fractions")
    help = "draws of images for the 95 %% intervals (default: 1000)"
    verb.add_argument("--resamples", type=_at_least(100), default=1000, metavar="N", help=help)
    verb.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="N", help="seed of the draws (default: 0)"
    )
    _names(verb)
    _dataset(verb)


def _runs(text: str) -> list[Path]:
    """The paths between commas, or the whole text if a path has that name."""
    if text and Path(text).exists():
        return [Path(text)]
    parts = text.split(",")
    if not all(parts):
        raise ArgumentTypeError(f"'{text}' has nothing between two commas")
    return list(map(Path, parts))


def _run_compare(options: Namespace) -> None:
    from tiltbox.stages.compare import compare, comparison_table

    found = compare(
        options.first,
        options.second,
        options.labels,
        options.out,
        resamples=options.resamples,
        seed=options.seed,
        classes=_classes(options.dataset),
        names=options.names,
    )
    print(comparison_table(found))


# complexity -------------------------------------------------------------------------------------------


def _complexity(verbs) -> None:
    verb = _verb(verbs, "complexity", "count parameters and multiply-adds of a variant", _run_complexity)
    _variant(verb)
    _out(verb, "FILE.json", "the counts")
    verb.add_argument(
        "--size", type=int, default=1024, metavar="PX", help="side of the input (default: 1024)"
    )
    _dataset(verb)


def _run_complexity(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.complexity import complexity

    counts = complexity(
        options.variant,
        find_variant(options.variant),
        options.out,
        size=options.size,
        num_classes=len(_classes(options.dataset)),
    )
    millions, billions = counts["params"] / 1e6, counts["flops"] / 1e9
    print(f"{options.variant}: {millions:.2f} M parameters, {billions:.2f} G multiply-adds")


# report -----------------------------------------------------------------------------------------------


def _report(verbs) -> None:
    verb = _verb(verbs, "report", "compare all variants in one table", _run_report)
    verb.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder with one folder per variant")
    help = "folder for leaderboard.md, .csv and .html, and detectors/ (default: only print the table)"
    verb.add_argument("--out", type=Path, metavar="DIR", help=help)


def _run_report(options: Namespace) -> None:
    from tiltbox.stages.report import report

    print(report(options.results, options.out))


# verify -----------------------------------------------------------------------------------------------


def _verify(verbs) -> None:
    help = "check results against their records, from the images to the leaderboard"
    verb = _verb(verbs, "verify", help, _run_verify)
    verb.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder of a dataset, or part of it")


def _run_verify(options: Namespace) -> None:
    from tiltbox.errors import DataError
    from tiltbox.stages.verify import verify

    found = verify(options.results)
    looked_at = f"{_number(found.files, 'file')} of {_number(found.records, 'record')}"
    for problem in found.problems:
        print(problem)
    if found.problems:
        count = f"{_number(len(found.problems), 'problem')} in {looked_at}"
        raise DataError(options.results, count, "run the stages that made them again, or restore the files")
    print(f"{looked_at}: all unchanged since they were written and read")
    if found.absent:
        print(f"not here, so not checked: {', '.join(found.absent)}")


# status -----------------------------------------------------------------------------------------------


def _status(verbs) -> None:
    help = "show the progress of a Snakemake run in this folder, from another terminal or on a cluster"
    _verb(verbs, "status", help, _run_status)


def _run_status(options: Namespace) -> None:
    from tiltbox.watching import lines, read_states

    states = read_states()
    for dataset, state in states.items():
        first, *jobs = lines(state)
        print("\n".join([f"{dataset}: {first}", *jobs]))
    if not states:
        print("no run is active in this folder")


# tracking ---------------------------------------------------------------------------------------------


def _tracking(verbs) -> None:
    verb = _verb(verbs, "tracking", "create the MLflow database before stages write to it", _run_tracking)
    verb.add_argument(
        "experiment", metavar="EXPERIMENT", help="name of the experiment, usually that of the dataset"
    )


def _run_tracking(options: Namespace) -> None:
    from tiltbox import tracking

    address = tracking.address(tracking.prepare(options.experiment))
    print(f"scores in a browser, while `mlflow ui` runs: {address}")


def _track_results(verbs) -> None:
    help = "bring MLflow up to date with results, for example after a server was down; safe to repeat"
    verb = _verb(verbs, "track", help, _run_track_results)
    verb.add_argument("results", type=Path, metavar="RESULTS_DIR", help="folder of a dataset, or part of it")
    help = "experiment to log to (default: the one each training was started with, else the dataset's)"
    verb.add_argument("--experiment", metavar="NAME", help=help)


def _run_track_results(options: Namespace) -> None:
    from tiltbox import tracking

    for name, state in tracking.catch_up_all(options.results, options.experiment).items():
        print(f"{state:<8}  {name}")


# weights ----------------------------------------------------------------------------------------------


def _weights(verbs) -> None:
    help = "download the weights that a training starts from, for machines without internet access"
    verb = _verb(verbs, "weights", help, _run_weights)
    _variant(verb)
    _schedule_option(verb)
    _dataset(verb)


def _run_weights(options: Namespace) -> None:
    from tiltbox.model.variants import find_variant
    from tiltbox.stages.weights import weights, weights_at_hand

    variant, schedule = find_variant(options.variant), _schedule(options)
    if schedule is None:
        print(weights_at_hand(variant) or "schedule auto: trainings on few patches start from random weights")
    else:
        print(weights(variant, schedule) or "the training starts from random weights")


def _number(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _warn_of(count: int, noun: str, what: str) -> None:
    if count:
        log.warning("%s %s", _number(count, noun), what)


def _classes(dataset: str | None) -> tuple[str, ...]:
    if dataset is None:
        from tiltbox.dota.classes import DOTA_V1_CLASSES

        return DOTA_V1_CLASSES
    from tiltbox.settings.datasets import find_dataset

    return find_dataset(dataset).classes


def _name(dataset: str | None) -> str:
    from tiltbox.settings.datasets import find_dataset

    return find_dataset(dataset).name if dataset else ""
