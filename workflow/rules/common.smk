# The settings, checked before there is a DAG, and what several rules need of them.

import sys

from tiltbox import layout
from tiltbox.errors import TiltboxError
from tiltbox.settings.base import fingerprint
from tiltbox.settings.workflow import gpus_here, resolve

try:
    plan = resolve(config)
except TiltboxError as error:
    sys.exit(f"snakemake: {error}")

dataset = plan.dataset
DATASET_SETTING = plan.workflow.dataset
# Without GPUs, and where the schedule does not say, the variants share the cores.
CPU_THREADS = max(1, workflow.cores // len(plan.variants))


# Without a limit Snakemake ignores GPUs when it runs jobs itself; `--resources gpu=N` sets another.
workflow.global_resources.setdefault("gpu", gpus_here())


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


def tracked(variant):
    """The option that logs a stage to the variant's MLflow run."""
    return f"--track {dataset.name}/{variant}" if plan.workflow.track else ""


def log_file(stage):
    return str(layout.LOGS / dataset.name / "{variant}" / f"{stage}.log")


def benchmark_file(stage):
    return str(layout.BENCHMARKS / dataset.name / "{variant}" / f"{stage}.tsv")
