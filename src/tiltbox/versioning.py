"""DVC: what Snakemake made is recorded in ``dvc.lock``, so that ``dvc repro`` does not make it again."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tiltbox.configs import CONFIGS, read_yaml
from tiltbox.errors import TiltboxError
from tiltbox.files.atomic import write_text
from tiltbox.freshness import Freshness
from tiltbox.settings.datasets import Dataset
from tiltbox.settings.workflow import Plan, resolve

log = logging.getLogger("tiltbox")

PIPELINE = Path("dvc.yaml")
OWN_FOLDERS = re.compile(r"(?<=# your own folders:\n)( +- \S.*\n)*")


def record_results(dataset: str, gpus: int) -> None:
    """Record the results on a dataset in DVC, if they are complete for ``configs/config.yaml``.

    Nothing is recorded if a result is missing or was made with other settings (``--config``), if DVC itself
    called Snakemake, if this folder is not a DVC repository, or if the dataset file is not in
    ``configs/datasets``. A failure of DVC is a warning and does not fail the run.

    Args:
        gpus: The number of GPUs that trainings of the run may use.
    """
    if "DVC_ROOT" in os.environ or not _is_versioned():
        return
    try:
        plan = resolve(read_yaml(CONFIGS / "config.yaml"), gpus=gpus)
    except TiltboxError:
        return
    if plan.dataset.name == plan.workflow.dataset == dataset and _complete(plan):
        _commit(f"{stage}@{plan.workflow.dataset}" for stage in ("data", "comparison"))


def name_own_folders(dataset: Dataset) -> None:
    """List the user's folders of images in dvc.yaml, so that DVC checks them for changes.

    If DVC itself called Snakemake, it has read the file already, and needs a second run to notice them.
    """
    if not _is_versioned() or read_yaml(CONFIGS / "config.yaml").get("dataset") != dataset.name:
        return
    text = PIPELINE.read_text(encoding="utf-8")
    root = dataset.source.folder
    folders = [os.path.relpath(root / folder) for folder in dataset.folders()] if root else []
    lines = "".join(f"        - {json.dumps(folder, ensure_ascii=False)}\n" for folder in folders)
    if (changed := OWN_FOLDERS.sub(lambda _: lines, text)) != text:
        write_text(PIPELINE, changed)
        if "DVC_ROOT" in os.environ:
            log.warning(
                "snakemake: dvc.yaml has changed: it lists the folders of images of dataset %s (%s);"
                " when this is done, run 'dvc repro' once more, which records that and runs no stage",
                *(dataset.name, ", ".join(folders) or "none"),
            )


def _complete(plan: Plan) -> bool:
    """Whether all results exist and match the plan."""
    freshness = Freshness(plan)
    stages = ("train", "predict", "merge", *(["evaluate"] if plan.dataset.test_labelled else []))
    jobs = [(stage, run) for run in plan.runs for stage in stages]
    jobs += [*(("complexity", name) for name in plan.variants), ("report", "")]
    return all(freshness.is_here(*job) and freshness.change(*job) is None for job in jobs)


def _is_versioned() -> bool:
    return Path(".dvc").is_dir() and Path(".git").exists() and PIPELINE.is_file()


def _commit(stages: Iterable[str]) -> None:
    command = [sys.executable, "-m", "dvc", "commit", "--force", *stages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = (line for line in done.stderr.splitlines() if line.startswith("ERROR: "))
        reason = next(errors, "DVC gave no reason").removeprefix("ERROR: ")
        remedy = "fix that, then run 'dvc repro', which records them and runs no stage"
        log.warning("snakemake: results are not recorded in dvc.lock (%s); %s", reason, remedy)
