# The settings, checked before there is a DAG, and what several rules need of them.
#
# What a result depends on stands in `params` of its rule, as a rule as a fingerprint: Snakemake runs a rule
# again if they, its inputs or the plain text of its command change. What only says how to get there (file
# names, numbers of GPUs and processes, MLflow) reaches the command as a global in capitals, or by a function
# with `output` among its arguments: Snakemake does not compare either.

import sys

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
DATASET = plan.workflow.dataset
SCHEDULE = plan.schedule_name
GPUS = plan.gpus
CORES = workflow.resource_settings.cores or 16  # on a cluster nobody may have set them
# Without GPUs, and where the schedule does not say, the variants share the cores.
CPU_THREADS = plan.schedule.threads or max(1, CORES // len(plan.variants))


wildcard_constraints:
    variant="|".join(plan.variants),


def dataset_keys(*keys):
    return dataset.model_dump(mode="json", include=set(keys))


def cut_splits():
    """The splits to train on and to test on; one entry where they are the same."""
    train, test = dataset.train_splits, (dataset.test_split,)
    return {"train": train} if train == test else {"train": train, "test": test}


def sources(splits):
    """The folders of raw images and labels that are cut together."""
    return [layout.raw(dataset.name) / split for split in splits]


def results_of(variant):
    """What a variant's row ends in: scores, or where there are no labels the file to submit."""
    scores = layout.metrics(dataset.name, variant)
    submission = layout.task1(dataset.name, variant) / "Task1.zip"
    return scores if dataset.test_labelled else submission


def tracked(wildcards, output):
    """The option that logs a stage to the variant's MLflow run."""
    return f"--track {dataset.name}/{wildcards.variant}" if plan.workflow.track else ""


def log_file(stage):
    return str(layout.LOGS / dataset.name / "{variant}" / f"{stage}.log")


def benchmark_file(stage):
    return str(layout.BENCHMARKS / dataset.name / "{variant}" / f"{stage}.tsv")
