# The settings, checked before there is a DAG, and what more than one rule needs of them.
#
# A job runs again if anything that its results depend on has changed, which tiltbox.freshness finds from the records
# of the stages. The parameter `job` is a hash of the settings among these. Snakemake's own notes and the times of
# files are ignored, since both are lost when results are copied, linked, moved or checked out.

import _thread
import atexit
import os
import sys
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake.dag import DAG
from snakemake.io import _IOFile
from snakemake.scheduling.job_scheduler import JobScheduler

from tiltbox import layout
from tiltbox.errors import TiltboxError
from tiltbox.files.atomic import acquired
from tiltbox.freshness import Freshness
from tiltbox.devices.gpus import gpus_here
from tiltbox.model.variant import SIZES
from tiltbox.settings.workflow import resolve
from tiltbox.versioning import name_own_folders, record_results

# Without a limit Snakemake ignores GPUs when it runs jobs itself; `--resources gpu=N` sets another, as the
# profile for SLURM does. A job that SLURM started has the GPUs that it asked for.
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
CORES = workflow.resource_settings.cores or 16  # they may not be set on a cluster


# A run is a training: a variant or, with a seed other than 0, something like yoloms-xs-current/seed-1.
wildcard_constraints:
    variant="|".join(plan.variants),
    run=f"({'|'.join(plan.variants)})(/{layout.SEED}[1-9][0-9]*)?",


def run_or_variant(wildcards):
    return wildcards.get("run") or wildcards.get("variant") or ""


# An input that is newer than all results makes Snakemake run a job again. It must exist before Snakemake looks, and
# have a new name each time, or its content would be compared with that of the last one.
AGAIN = Path(f".snakemake/tiltbox-again-{os.getpid()}")
REASONS = layout.LOGS / dataset.name / "reasons.txt"  # in words, for the last run
if workflow.is_main_process:
    with suppress(OSError):  # the folder may be read-only
        AGAIN.parent.mkdir(exist_ok=True)
        AGAIN.touch()
        atexit.register(AGAIN.unlink, missing_ok=True)


# DVC links results into its cache, where they are read-only. Stages replace files and never modify them.
async def replaceable(file):
    return False


_IOFile.protected = replaceable


# On SIGTERM Snakemake waits for a lock, in the thread that holds it while jobs are selected: it would wait forever.
exit_gracefully = JobScheduler.exit_gracefully
JobScheduler.exit_gracefully = lambda self, *signal: _thread.start_new_thread(
    exit_gracefully, (self, *signal)
)


# Snakemake does not look at jobs behind one that must run, since it expects that one to make them run. Here
# an input that exists makes nothing run, even if it is made again. So Snakemake has to look at all of them.
find_due_jobs = DAG.update_needrun


async def find_due_jobs_everywhere(dag, **options):
    dag.bfs = lambda *masked: ()
    try:
        await find_due_jobs(dag, **options)
    finally:
        del dag.bfs


DAG.update_needrun = find_due_jobs_everywhere


def is_executed():
    """Whether this process will run jobs; known when the DAG is built."""
    return workflow.is_main_process and workflow.executor_plugin and not workflow.dryrun


@cache
def freshness():
    """What has to be done again; used while the DAG is built, when Snakemake's settings for it are known."""
    settings = workflow.dag_settings
    settings.rerun_triggers = frozenset()
    # A killed job leaves no record, or a complete result. So Snakemake's marks are not needed; with them it
    # would make some results again.
    workflow.dag.ignore_incomplete = True
    dag = workflow.dag
    targets = {*map(str, dag.targetrules | dag.untilrules | dag.targetfiles)}
    if "data" in targets:
        targets |= {f"split_{role}" for role in cut_splits()}
    forced = map(str, dag.forcerules | dag.forcefiles)
    found = Freshness(plan, targets, forced)
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
    """End this run, before it does anything, if another run is active on the dataset.

    Snakemake does so, too, using lists of files, but a killed run leaves them behind: they are removed.
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
        os._exit(1)  # an exception would be shown as an error of the workflow
    if not held:
        return  # no locks on this drive: Snakemake's lists must suffice
    atexit.register(lock.release)
    places = tuple(
        f"{folder / dataset.name}/" for folder in (layout.DATA, layout.RESULTS)
    )
    for left in Path(".snakemake/locks").glob("*.lock"):
        if any(line.startswith(places) for line in left.read_text().splitlines()):
            left.unlink()


def date_back():
    """Date results with a time in the future, from a wrong clock, back to now, so that AGAIN is newer."""
    now = AGAIN.stat().st_mtime
    results = (layout.RESULTS / dataset.name).glob("**/*")
    data = (layout.DATA / dataset.name).glob("*/**/manifest.json")
    for path in chain(results, data):
        if path.lstat().st_mtime >= now:
            os.utime(path, (now - 1, now - 1), follow_symlinks=False)


def forget_other_weights():
    """Remove the marks of downloaded weights to start from if they are for another address."""
    for variant in plan.variants:
        mark = layout.weights_mark(dataset.name, variant)
        if mark.exists() and mark.read_text() != str(plan.starting_weights(variant)):
            mark.unlink()


def needs(job_rule, **files):
    """The inputs of a job: all of them if it has to run again, and a file that makes it do so.

    The inputs of other jobs are ancient, so those that exist trigger nothing. If no result of a job is missed,
    inputs are left out that are missing or of other settings: they would be made for nothing, and then, those
    that are missing now, would make the job run. A process that runs a single job leaves out nothing.
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
        if workflow.is_main_process and not freshness().is_missed(job_rule, run):
            paths = {
                name: [path for path in each if is_of_use(Path(path))]
                for name, each in paths.items()
            }
        return {name: list(map(ancient, each)) for name, each in paths.items()}

    return found


def is_of_use(path):
    return path.exists() and not freshness().is_of_other_settings(path)


def images_to_check(wildcards):
    """For all_variants: the images, if nothing but their own check has to be done again."""
    manifest = layout.raw(dataset.name) / "manifest.json"
    return [manifest] if freshness().only_expectations_differ() else []


@cache
def note(reason):
    if is_executed():
        with REASONS.open("a") as notes:
            notes.write(f"{reason}\n")


def job(rule_name):
    """The key of a job, for the record of its stage, which says what was asked for."""
    return lambda wildcards: freshness().key(rule_name, run_or_variant(wildcards))


def cut_splits():
    """The splits to train on and to test on; one entry if they are the same."""
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
    """The final result of a training: scores or, without labels, the file to submit."""
    scores = layout.metrics(dataset.name, run)
    submission = layout.task1(dataset.name, run) / "Task1.zip"
    return scores if dataset.test_labelled else submission


def cpu_threads(wildcards):
    """Without GPUs, and if the schedule does not set threads, the requested trainings share the cores."""
    targets = {
        part for target in workflow.dag_settings.targets for part in Path(target).parts
    }
    asked = targets & set(plan.variants) or plan.variants
    trainings = len(asked) * len(plan.workflow.seeds)
    return plan.schedule.threads or max(1, CORES // trainings)


def launcher(wildcards, resources):
    """What starts the tasks that train together: set-resources train:mpi=srun (docs/cluster.md)."""
    if "mpi" not in resources.keys():
        return ""
    tasks, nodes = resources.tasks, resources.get("nodes", 1)
    return f"{resources.mpi} --ntasks={tasks} --nodes={nodes} --kill-on-bad-exit"


def smaller_first(wildcards):
    """A priority that gives the first scores and the first comparison early; below that of scoring itself."""
    return len(SIZES) - SIZES.index(plan.variants[variant_of(wildcards)].size)


def tracked(wildcards):
    """The option that logs a stage to the training's MLflow run."""
    return f"--track {dataset.name}/{wildcards.run}" if plan.workflow.track else ""


def log_file(stage, of="{run}"):
    return str(layout.LOGS / dataset.name / of / f"{stage}.log")


def benchmark_file(stage, of="{run}"):
    return str(layout.BENCHMARKS / dataset.name / of / f"{stage}.tsv")


def shown(path, caption, category, labels, needed=()):
    """A result that `snakemake --report` shows, if it exists together with the ``needed`` ones beside it.

    Snakemake's report stops at a missing result, such as the page of a detector if an older version made the
    rest.
    """
    if "--report-after-run" in sys.argv or all(map(Path.exists, [path, *needed])):
        caption = f"../report/{caption}.rst"
        return report(path, caption=caption, category=category, labels=labels)
    return path


def labels_of(variant):
    """The labels of variants in Snakemake's report; it has a switch for the series if each size has them all.

    A switch that leads to a missing variant would break the report, and so would a second switch beside it.
    """
    rows = plan.variants.values()
    pairs = {(row.size, row.series) for row in rows}
    sizes, all_series = ({pair[at] for pair in pairs} for at in range(2))
    if len(rows) == len(pairs) == len(sizes) * len(all_series) and len(all_series) > 1:
        row = plan.variants[variant]
        names = {"size": row.size.upper(), "series": row.series}
    else:
        names = {"detector": variant}
    return names | {"seeds": ", ".join(map(str, plan.workflow.seeds))}
