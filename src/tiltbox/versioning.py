"""DVC: what Snakemake made is recorded in ``dvc.lock``, so that ``dvc repro`` does not have it made again."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tiltbox.errors import TiltboxError
from tiltbox.files import write_text
from tiltbox.freshness import Freshness
from tiltbox.settings.base import CONFIGS, read_yaml
from tiltbox.settings.datasets import Dataset
from tiltbox.settings.workflow import Plan, resolve

log = logging.getLogger("tiltbox")

PIPELINE = Path("dvc.yaml")
OWN_FOLDERS = re.compile(r"(?<=# your own folders:\n)( +- \S.*\n)*")


def record_results(dataset: str) -> None:
    """Have DVC take over the results on a dataset, if all are there that ``configs/config.yaml`` asks for.

    It takes nothing where a part is missing, or was made with other settings (``--config``): its record would
    be wrong. Nor does it where it called Snakemake itself, does not version this folder, or cannot know the
    dataset, whose file lies elsewhere. That it fails is said, and is no failure of the run.
    """
    if not (Path(".dvc").is_dir() and Path(".git").exists() and PIPELINE.is_file()):
        return
    try:
        plan = resolve(read_yaml(CONFIGS / "config.yaml"))
    except TiltboxError:
        return
    if plan.dataset.name != dataset or plan.workflow.dataset != dataset:
        return
    _name_own_folders(plan.dataset)
    if "DVC_ROOT" not in os.environ and _complete(plan):
        _commit(f"{stage}@{plan.workflow.dataset}" for stage in ("data", "comparison"))


def _name_own_folders(dataset: Dataset) -> None:
    """DVC looks for changes in the folders that its file names, and the file can ask for none."""
    text = PIPELINE.read_text(encoding="utf-8")
    folders = [os.path.relpath(dataset.source.folder / folder) for folder in dataset.folders()]
    lines = "".join(f"        - {folder}\n" for folder in folders)
    if (changed := OWN_FOLDERS.sub(lambda _: lines, text)) != text:
        write_text(PIPELINE, changed)


def _complete(plan: Plan) -> bool:
    """Whether all results are what the plan says."""
    freshness = Freshness(plan)
    last = "evaluate" if plan.dataset.test_labelled else "merge"
    runs = [(last, run) for run in plan.runs]
    jobs = [*runs, *(("complexity", name) for name in plan.variants), ("report", "")]
    return all(freshness.reason(*job) is None for job in jobs)


def _commit(stages: Iterable[str]) -> None:
    command = [sys.executable, "-m", "dvc", "commit", "--force", *stages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = (line for line in done.stderr.splitlines() if line.startswith("ERROR: "))
        reason = next(errors, "for no reason that it gave").removeprefix("ERROR: ")
        remedy = "'dvc repro' does that and runs nothing"
        log.warning("snakemake: results are not recorded in dvc.lock (%s); %s", reason, remedy)
