# The settings, checked before there is a DAG, and what several rules need of them.
#
# A job runs again if what its results depend on has changed, as tiltbox.freshness finds by the records that the stages
# leave: its parameter `job` is a hash of the settings among that. Snakemake's own notes and the times of files are
# not asked, since both are lost where results are copied, linked, moved or checked out.

import atexit
import os
import sys
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake.io import _IOFile

from tiltbox import layout
from tiltbox.errors import TiltboxError
from tiltbox.files import acquired
from tiltbox.freshness import Freshness
from tiltbox.gpus import gpus_here
from tiltbox.settings.workflow import resolve
from tiltbox.versioning import name_own_folders, record_results

# Without a limit Snakemake ignores GPUs when it runs jobs itself; `--resources gpu=N` sets another, as the
# profile for SLURM does. A job that SLURM started has got what it asked for.
workflow.global_resources.setdefault("gpu", gpus_here())
GPU_LIMIT = (
    sys.maxsize if workflow.remote_exec else workflow.global_resources["gpu"].value
)

try:
    plan = resolve(
        config, overridden=workflow.config_settings.overwrite_config, gpus=GPU_LIMIT
    )
except TiltboxError as error:
    sys.exit(f"snakemake: {error}")

if workflow.is_main_process:
    for remark in plan.remarks:
        print(f"snakemake: {remark}", file=sys.stderr)

dataset = plan.dataset
SIZES = ("xs", "s", "l")
CORES = workflow.resource_settings.cores or 16  # on a cluster nobody may have set them


# A run is a training: a variant, or with another seed than 0 something like yoloms-xs-current/seed-1.
wildcard_constraints:
    variant="|".join(plan.variants),
    run=f"({'|'.join(plan.variants)})(/{layout.SEED}[1-9][0-9]*)?",


def run_or_variant(wildcards):
    return wildcards.get("run") or wildcards.get("variant") or ""


# By an input that is newer than all results Snakemake knows that they have to be made again. It has to be there
# before Snakemake looks, and under another name each time, or its content would be compared with the last one's.
AGAIN = Path(f".snakemake/tiltbox-again-{os.getpid()}")
REASONS = layout.LOGS / dataset.name / "reasons.txt"  # in words, of the last run
if workflow.is_main_process:
    with suppress(OSError):  # where one may only read
        AGAIN.parent.mkdir(exist_ok=True)
        AGAIN.touch()
        atexit.register(AGAIN.unlink, missing_ok=True)


# DVC links results into its cache, where they are read-only. Stages replace files and write into none.
async def replaceable(file):
    return False


_IOFile.protected = replaceable


def is_executed():
    """Whether jobs will be run, by this process; known when the DAG is built."""
    return workflow.is_main_process and workflow.executor_plugin and not workflow.dryrun


@cache
def freshness():
    """What has to be done again; asked for as the DAG is built, when Snakemake's settings for it are known."""
    settings = workflow.dag_settings
    settings.rerun_triggers = frozenset()
    # A job that was killed has left no record, or a whole result: Snakemake's marks, by which it would make some
    # results again and pass over what is missing behind them, are not needed.
    workflow.dag.ignore_incomplete = True
    found = Freshness(plan, settings.forcerun, everything=settings.forceall)
    if is_executed():
        require_alone()
        layout.archives(dataset.name).mkdir(parents=True, exist_ok=True)
        REASONS.write_text("")
        date_back()
        forget_other_weights()
        name_own_folders(dataset)
    if workflow.is_main_process:
        atexit.register(found.keep_hashes)
    return found


def require_alone():
    """End this run, before it does anything, if another is at work on the dataset.

    Snakemake does so, too, by lists of files, which a run that was killed leaves behind: they are removed.
    """
    place = layout.LOGS / dataset.name / ".run.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place, thread_local=False, fallback_to_soft=False)
    try:
        held = acquired(lock, 0)
    except Timeout:
        other = f"another run on dataset {dataset.name} is active in this folder"
        print(f"snakemake: {other}; wait until it ends, or stop it", file=sys.stderr)
        sys.stderr.flush()
        AGAIN.unlink(missing_ok=True)
        os._exit(1)  # an exception would be shown as a fault of the workflow
    if not held:
        return  # no locks on this drive: Snakemake's lists have to do
    atexit.register(lock.release)
    places = tuple(
        f"{folder / dataset.name}/" for folder in (layout.DATA, layout.RESULTS)
    )
    for left in Path(".snakemake/locks").glob("*.lock"):
        if any(line.startswith(places) for line in left.read_text().splitlines()):
            left.unlink()


def date_back():
    """Give results that a wrong clock has dated later than now the time of now, so that AGAIN is newer."""
    now = AGAIN.stat().st_mtime
    results = (layout.RESULTS / dataset.name).glob("**/*")
    data = (layout.DATA / dataset.name).glob("*/**/manifest.json")
    for path in chain(results, data):
        if path.lstat().st_mtime >= now:
            os.utime(path, (now - 1, now - 1), follow_symlinks=False)


def forget_other_weights():
    """Remove marks that weights to start from are there, if they are those of another address."""
    for variant in plan.variants:
        mark = layout.weights_mark(dataset.name, variant)
        if mark.exists() and mark.read_text() != str(plan.starting_weights(variant)):
            mark.unlink()


def needs(job_rule, **files):
    """The inputs of a job: all of one that has to be done again, and what says so.

    Of others they trigger nothing. Where all is here that the job has made, those are left out that are not here, or are
    of other settings: if they were made again, Snakemake would not look for what is missing behind the job.
    """
    files = {name: list(map(str, each)) for name, each in files.items()}

    def found(wildcards):
        run = run_or_variant(wildcards)
        variant, _ = layout.variant_and_seed(run)
        paths = {
            name: [path.format(run=run, variant=variant) for path in each]
            for name, each in files.items()
        }
        change = freshness().change(job_rule, run)
        if change is not None:
            note(f"{' '.join(filter(None, (job_rule, run)))}: {change}")
            return paths | {"again": [str(AGAIN)] if AGAIN.exists() else []}
        if freshness().is_here(job_rule, run):
            paths = {
                name: [path for path in each if is_of_use(Path(path))]
                for name, each in paths.items()
            }
        return {name: list(map(ancient, each)) for name, each in paths.items()}

    return found


def is_of_use(path):
    return path.exists() and not freshness().is_of_other_settings(path)


def images_to_check(wildcards):
    """For all_variants: the images, where no result but their own check has to be made again."""
    manifest = layout.raw(dataset.name) / "manifest.json"
    return [manifest] if freshness().only_expectations_differ() else []


@cache
def note(reason):
    if is_executed():
        with REASONS.open("a") as notes:
            notes.write(f"{reason}\n")


def job(rule_name):
    """For the record of a stage, so that it is known what was asked for."""
    return lambda wildcards: freshness().key(rule_name, run_or_variant(wildcards))


def cut_splits():
    """The splits to train on and to test on; one entry where they are the same."""
    train, test = dataset.train_splits, (dataset.test_split,)
    return {"train": train} if train == test else {"train": train, "test": test}


def sources(splits):
    """The folders of raw images and labels that are cut together."""
    return [layout.raw(dataset.name) / split for split in splits]


def variant_of(wildcards):
    return layout.variant_and_seed(wildcards.run)[0]


def seed_of(wildcards):
    return layout.variant_and_seed(wildcards.run)[1]


def results_of(run):
    """What a training ends in: scores, or where there are no labels the file to submit."""
    scores = layout.metrics(dataset.name, run)
    submission = layout.task1(dataset.name, run) / "Task1.zip"
    return scores if dataset.test_labelled else submission


def cpu_threads(wildcards):
    """Without GPUs, and where the schedule does not say, the trainings that were asked for share the cores."""
    targets = {
        part for target in workflow.dag_settings.targets for part in Path(target).parts
    }
    asked = targets & set(plan.variants) or plan.variants
    trainings = len(asked) * len(plan.workflow.seeds)
    return plan.schedule.threads or max(1, CORES // trainings)


def smaller_first(wildcards):
    """The first scores, and the first comparison, are there early; below the priority of what scores them."""
    return 3 - SIZES.index(plan.variants[variant_of(wildcards)].size)


def tracked(wildcards):
    """The option that logs a stage to the training's MLflow run."""
    return f"--track {dataset.name}/{wildcards.run}" if plan.workflow.track else ""


def log_file(stage, of="{run}"):
    return str(layout.LOGS / dataset.name / of / f"{stage}.log")


def benchmark_file(stage, of="{run}"):
    return str(layout.BENCHMARKS / dataset.name / of / f"{stage}.tsv")


def shown(path, caption, category, labels, needed=()):
    """A result that `snakemake --report` shows, where it is there together with those that are ``needed`` beside it.

    Snakemake's report stops at a result that is missing, as pages of detectors are where an older version made the rest.
    """
    if "--report-after-run" in sys.argv or all(map(Path.exists, [path, *needed])):
        caption = f"../report/{caption}.rst"
        return report(path, caption=caption, category=category, labels=labels)
    return path


def labels_of(variant):
    """What Snakemake's report tells variants apart by: it has a switch for the generation if each size has both.

    A switch that leads to a variant that is missing would break the report, and so would a second one beside it.
    """
    rows = plan.variants.values()
    pairs = {(row.size, row.generation) for row in rows}
    sizes = {row.size for row in rows}
    if len(rows) == len(pairs) == 2 * len(sizes):
        row = plan.variants[variant]
        names = {"size": row.size.upper(), "generation": row.generation}
    else:
        names = {"detector": variant}
    return names | {"seeds": ", ".join(map(str, plan.workflow.seeds))}
