"""Calls of Snakemake, DVC and others in a copy of the project, for the tests of this folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TWO = ("yoloms-xs-previous", "yoloms-xs-current")
PER_VARIANT = ("train", "predict", "merge", "evaluate", "complexity")
AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org")
FOREIGN = ("MLFLOW_", "DVC_", "SNAKEMAKE_", "SLURM_")


def environment_of(at: Path, **variables: str) -> dict[str, str]:
    """As on a machine without GPUs, with these variables; programs in ``at``/bin come first."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    path = os.pathsep.join([str(at / "bin"), plain["PATH"]])
    return plain | {"PATH": path, "DVC_NO_ANALYTICS": "1", "CUDA_VISIBLE_DEVICES": ""} | variables


def tried(*command: str | Path, at: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=at,
        env=environment_of(at, **variables),
        capture_output=True,
        text=True,
        check=False,
    )


def call(*command: str | Path, at: Path) -> str:
    """The output of a command that must succeed."""
    done = tried(*command, at=at)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dry_run(at: Path, *settings: str, targets: tuple[str, ...] = (), **variables: str) -> dict[str, int]:
    """How many jobs of each rule would run; empty if there is nothing to do."""
    done = tried("snakemake", *targets, "--dry-run", "--config", *settings, at=at, **variables)
    assert done.returncode == 0, done.stderr
    if "Nothing to be done" in done.stdout + done.stderr:
        return {}
    (table,) = set(re.findall(r"Job stats:\n.*?\n\n", done.stdout, flags=re.DOTALL))
    jobs = dict(re.findall(r"^(\w[\w-]*) +(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in jobs.items() if rule != "total"}


def jobs_of(at: Path, *settings: str) -> set[tuple[str, str]]:
    """Rule and output folder or file of all jobs that would run."""
    done = tried("snakemake", "--dry-run", "--config", *settings, at=at)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^rule ([\w-]+):\n(?:    .*\n)*?    output: ([^\s,]+)", done.stdout, flags=re.MULTILINE
    )
    return set(found)


def require_nothing_to_do(at: Path) -> None:
    dry = call("snakemake", "--dry-run", at=at)
    assert "Nothing to be done" in dry, dry
    assert "up to date" in call("dvc", "status", at=at)


def program(path: Path, script: str) -> None:
    """A program that stands in for the real one."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{textwrap.dedent(script)}")
    path.chmod(0o755)


def with_stand_ins(folder: Path, command: str = "stand_in") -> Path:
    """Give the project a ``tiltbox`` that does no work (stand_in.py)."""
    program(folder / "bin/tiltbox", f'exec {command} "$@"\n')
    return folder


# Stand-ins in processes of their own, which end with the program that called them.
MORTAL = f"{sys.executable} {Path(__file__).with_name('stand_in.py')}"


def change(path: Path, edit: Callable[[dict], dict]) -> None:
    path.write_text(yaml.safe_dump(edit(yaml.safe_load(path.read_text())), sort_keys=False))


def change_row(folder: Path, name: str, **changes: object) -> None:
    rows = lambda old: old | {name: old[name] | changes}  # noqa: E731
    change(folder / "configs/variants.yaml", lambda table: table | {"variants": rows(table["variants"])})


def repository(copy_project, folder: Path, **settings: object) -> Path:
    """A repository as after cloning, with a configuration that asks for two variants of the tiny set."""
    copy_project(folder)
    asked = {"dataset": "tiny", "variants": list(TWO), "gpus": 0} | settings
    change(folder / "configs/config.yaml", lambda config: config | asked)
    (folder / ".gitignore").open("a").write("/bin/\n/calls\n/trainings\n/hold\n")
    call("git", "init", "--quiet", at=folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    call("git", "add", "--all", at=folder)
    call(
        "git", *AUTHOR, "commit", "--quiet", "--no-gpg-sign", "--allow-empty", "--message", "as is", at=folder
    )
