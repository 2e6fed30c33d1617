"""Without MLflow, which an environment for single stages does not have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tiltbox import tracking
from tiltbox.__main__ import main
from tiltbox.errors import SettingsError
from tiltbox.provenance import Begun
from tiltbox.stages.tracked import require_run

MESSAGE = "MLflow: not installed in this environment; do without --track: `tiltbox track` logs"
# Python raises ImportError for a module that is None.
EVERY_MODULE = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(["dvc", "mlflow", "psutil", "pynvml", "snakemake"])
import tiltbox
for module in pkgutil.walk_packages(tiltbox.__path__, "tiltbox."):
    importlib.import_module(module.name)
"""


@pytest.fixture
def without_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)


def test_commands_say_so_in_a_line(without_mlflow, capsys):
    assert main(["tracking", "mini"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"tiltbox tracking: {MESSAGE}") and error.count("\n") == 1


def test_finished_trainings_cannot_be_logged(without_mlflow, run):
    work = run.train / "work"
    work.mkdir(parents=True)
    run.write(work / "history.csv", 1)
    run.finish(work, run.facts)
    settings = {name: getattr(run, name).model_dump(mode="json") for name in ("variant", "schedule")}
    Begun("train").record(run.train / "provenance.json", [], settings=settings)
    with pytest.raises(SettingsError, match=MESSAGE):
        tracking.catch_up_all(run.folder)


@pytest.mark.parametrize("check", [tracking.require_experiment, require_run])
def test_track_is_refused_before_any_work(without_mlflow, check):
    with pytest.raises(SettingsError, match=MESSAGE):
        check("mini/yoloms-xs-current")


@pytest.mark.own_processes
def test_no_module_needs_what_only_the_workflow_does():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
