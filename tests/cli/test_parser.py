"""How the command is called: verbs, options, their values and defaults."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiltbox import __version__
from tiltbox.cli import parser

STAGES = ["download", "split", "train", "predict", "merge", "evaluate", "complexity", "report"]
VERBS = [*STAGES, "compare", "verify", "status", "tracking", "track", "weights"]
TILTBOX = Path(sys.executable).parent / "tiltbox"


def test_nothing_is_wrong_usage(run, capsys):
    assert run("") == 2
    assert "the following arguments are required: STAGE" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb, run, capsys):
    assert run(f"{verb} --help") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: tiltbox {verb} ") and err == ""
    assert "--debug" in out


def test_help_lists_the_verbs(run, capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^    (\w+)", out, flags=re.MULTILINE) == VERBS


@pytest.mark.parametrize(
    "command",
    [
        "download mini --out DIR",
        "download dota --out DIR",
        "download path/to/dataset.yaml --out DIR",
        "split SRC --out DIR",
        "split SRC SRC2 --out DIR --size 512 --overlap 100 --rates 0.5 1.0 1.5 --iof 0.5 --workers 3",
        "train yoloms-xs-current --patches DIR --out DIR",
        "train yoloms-xs-current --patches DIR --out DIR --gpus 2 --schedule dota-2gpu --resume",
        "train yoloms-xs-current --patches DIR --out DIR --gpus 0 --schedule mine.yaml --no-resume",
        "predict yoloms-xs-current --checkpoint FILE --patches DIR --out FILE.parquet",
        "merge DETECTIONS --out DIR",
        "merge DETECTIONS --out DIR --iou 0.2",
        "evaluate TASK1_DIR --labels DIR --out FILE.json",
        "evaluate TASK1_DIR --labels DIR --out FILE.json --absent-classes zero",
        "complexity yoloms-xs-current --out FILE.json",
        "complexity yoloms-xs-current --out FILE.json --size 512",
        "report RESULTS_DIR --out DIR",
    ],
)
def test_spellings_of_the_design(command):
    assert parser().parse_args(command.split()).stage == command.split()[0]


def test_defaults_of_the_design():
    split = parser().parse_args(["split", "SRC", "--out", "DIR"])
    assert (split.size, split.overlap, split.rates, split.iof, split.workers) == (1024, 200, [1.0], 0.7, None)
    assert parser().parse_args(["merge", "D", "--out", "DIR"]).iou == 0.1
    assert parser().parse_args(["complexity", "V", "--out", "F"]).size == 1024
    train = parser().parse_args(["train", "V", "--patches", "DIR", "--out", "DIR"])
    assert (train.resume, train.gpus) == (True, None)


@pytest.mark.parametrize(
    "command",
    [
        "download mini --out DIR",
        "split SRC --out DIR",
        "train V --patches DIR --out DIR",
        "predict V --checkpoint FILE --patches DIR --out FILE",
        "merge DETECTIONS --out DIR",
        "evaluate TASK1_DIR --labels DIR --out FILE",
        "complexity V --out FILE",
        "compare A B --labels DIR",
    ],
)
def test_defaults_are_those_of_the_stage(command):
    verb = command.split()[0]
    stage = getattr(importlib.import_module(f"tiltbox.stages.{verb}"), verb)
    signature = inspect.signature(stage).parameters.values()
    expected = {each.name: each.default for each in signature if each.default is not each.empty}
    options = vars(parser().parse_args(command.split()))
    shared = options.keys() & expected.keys() - {"dataset"}  # which the stage takes apart
    found = {name: tuple(v) if isinstance(v := options[name], list) else v for name in shared}
    assert shared and found == {name: expected[name] for name in shared}


@pytest.mark.parametrize(("text", "count"), [("auto", None), ("0", 0), ("2", 2)])
def test_gpus(text, count):
    assert parser().parse_args(["train", "v", "--patches", "p", "--out", "o", "--gpus", text]).gpus == count


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fly", "invalid choice: 'fly'"),
        ("split --out out", "the following arguments are required: SRC"),
        ("split src", "the following arguments are required: --out"),
        ("split src --out out --size big", "argument --size: 'big' is not an integer of at least 1"),
        ("split src --out out --size 0", "argument --size: '0' is not an integer of at least 1"),
        ("split src --out out --workers 0", "argument --workers: '0' is not an integer of at least 1"),
        ("split src --out out --rates", "argument --rates: expected at least one argument"),
        (
            "train v --patches p --out out --gpus -1",
            "argument --gpus: '-1' is not an integer of at least 0",
        ),
        (
            "train v --patches p --out out --processes 0",
            "argument --processes: '0' is not an integer of at least 1",
        ),
        ("predict v --patches p --out out", "the following arguments are required: --checkpoint"),
        ("merge d --out out --iou wide", "argument --iou: invalid float value: 'wide'"),
        ("evaluate t --labels l --out o --absent-classes some", "argument --absent-classes: invalid choice"),
        ("report results --out out --speed 9", "unrecognized arguments: --speed 9"),
    ],
)
def test_wrong_usage(command, message, run, capsys):
    assert run(command) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


# the installed command ----------------------------------------------------------------------------------


def test_version():
    done = subprocess.run([TILTBOX, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tiltbox {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys, tiltbox.__main__\n"
        "try:\n    tiltbox.__main__.main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'cv2', 'numpy', 'pyarrow', 'numba', 'mlflow', 'mmengine', 'pydantic'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.endswith("heavy: []\n")
