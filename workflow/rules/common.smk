# The settings, checked before there is a DAG, and what several rules need of them.
#
# What a result depends on stands in `params`, mostly as a fingerprint. If they change, or the inputs, or the plain
# text of the command, Snakemake runs a job again. What only says how to get there (names of files, numbers of
# GPUs and processes, MLflow) is `uncompared`.

import sys
from pathlib import Path

from tiltbox import layout
from tiltbox.errors import TiltboxError
from tiltbox.gpus import gpus_here
from tiltbox.settings.base import CONFIGS, fingerprint
from tiltbox.settings.workflow import resolve

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
CORES = workflow.resource_settings.cores or 16  # on a cluster nobody may have set them


# A run is a training: a variant, or with another seed than 0 something like yoloms-xs-current/seed-1.
wildcard_constraints:
    variant="|".join(plan.variants),
    run=f"({'|'.join(plan.variants)})(/{layout.SEED}[1-9][0-9]*)?",


def uncompared(value):
    """A parameter that triggers nothing: Snakemake compares none that could be derived from the output."""
    return lambda wildcards, output: value


def dataset_keys(*keys):
    return dataset.model_dump(mode="json", include=set(keys))


def cut_splits():
    """The splits to train on and to test on; one entry where they are the same."""
    train, test = dataset.train_splits, (dataset.test_split,)
    return {"train": train} if train == test else {"train": train, "test": test}


def sources(splits):
    """The folders of raw images and labels that are cut together."""
    return [layout.raw(dataset.name) / split for split in splits]


def contents_of(splits):
    """What lies in these splits of a user's folder; looked up when a job may need it."""
    return lambda wildcards: dataset.contents(splits)


def variant_of(wildcards):
    return layout.variant_and_seed(wildcards.run)[0]


def seed_of(wildcards):
    return layout.variant_and_seed(wildcards.run)[1]


def weights_of(wildcards):
    return layout.weights_mark(dataset.name, variant_of(wildcards))


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


def tracked(wildcards, output):
    """The option that logs a stage to the training's MLflow run, ``uncompared``."""
    return f"--track {dataset.name}/{wildcards.run}" if plan.workflow.track else ""


def log_file(stage, of="{run}"):
    return str(layout.LOGS / dataset.name / of / f"{stage}.log")


def benchmark_file(stage, of="{run}"):
    return str(layout.BENCHMARKS / dataset.name / of / f"{stage}.tsv")
