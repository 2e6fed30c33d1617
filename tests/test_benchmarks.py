"""Each benchmark runs on minimal input; its measurements are for people to read."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tiltbox.mini import render_mini
from tiltbox.settings.schedules import find_schedule
from tiltbox.stages.split import split

BIN = Path(sys.executable).parent
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))
import rounded  # noqa: E402
from precision import precisions  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def programs(preload):
    """Those that benchmarks call start at once."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in (BIN, preload("python")):
            patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("merge.py --sizes 3000 --rounds 1", "tiltbox, parquet in, the whole command"),
        ("compare.py --detections 3000 --resamples 100 --rounds 1", "the whole command"),
        ("evaluate.py --sizes 3000 --rounds 1", "tiltbox, ten thresholds, the whole command"),
        ("split.py --images 1 --rounds 1", "Names and pixels are the same."),
        ("complexity.py --variants yoloms-xs-previous --size 256 --rounds 1", "1.390"),
        ("rotated.py --rounds 1", "NMS, 2,000 boxes"),
        ("training.py --size 64 --batches 1 --objects 3 --steps 1 --predict", "| tiltbox "),
        ("scaling.py --detections 3000 --images 1 --rounds 1", "split, 1 images"),
        ("tracking.py --images 2 --epochs 1 --variant yoloms-xs-previous", "while steps are done"),
    ],
)
def test_it_runs(tmp_path, words, said):
    done = benchmark(tmp_path, *words.split())
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_reading(tmp_path):
    render_mini(tmp_path / "raw", images={"train": 1, "val": 0, "test": 0})
    split([tmp_path / "raw/train"], tmp_path / "patches", size=256, overlap=0, workers=1)
    done = benchmark(tmp_path, "reading.py", "patches", "--schedule", "smoke", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "| tiltbox, pixels kept |" in done.stdout and "| RandomRotate " in done.stdout


def test_learning_side_by_side(tmp_path, data, monkeypatch):
    """A program that finds exactly what the labels of its dataset say plays the other detector."""
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)  # CPU time is that of child processes
    peer = tmp_path / "peer"
    peer.write_text(f"#!{sys.executable}\n{PERFECT_PEER}")
    peer.chmod(0o755)
    done = benchmark(tmp_path, *LEARNING, "--points", "1", "--epochs", "1", "--peer", peer)
    assert done.returncode == 0, done.stderr
    ours, theirs = (cells(line) for line in done.stdout.splitlines()[-2:])
    assert ours[:2] == ["tiltbox, yoloms-xs-previous", "1"]
    assert float(ours[2]) > 1
    assert theirs == ["Ultralytics, yolov8n-obb", "1", "7", "100.00", "100.00", "100.00", "0.0"]


def test_effects_of_the_recipe(tmp_path, data):
    done = benchmark(tmp_path, *LEARNING, "--effects", "--steps", "2", "--only", "without Muon")
    assert done.returncode == 0, done.stderr
    name, ap50, *_, cpu = cells(done.stdout.splitlines()[-1])
    assert name == "without Muon"
    assert float(ap50) >= 0 and cpu.isdecimal()


def test_a_training_that_fails_is_a_row(tmp_path, data, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = ["--only", "none of them", "Muon alone", "--jobs", "2", "--gpus", "1"]
    done = benchmark(tmp_path, *LEARNING, "--effects", "--steps", "2", *rows)
    assert done.returncode == 1
    assert [cells(line)[:2] for line in done.stdout.splitlines()[-2:]] == [
        ["none of them", "failed"],
        ["Muon alone", "failed"],
    ]
    assert "this machine has 0" in done.stderr


@pytest.mark.own_processes
def test_precisions_of_the_layers(tmp_path, data):
    done = benchmark(tmp_path, *LEARNING, "--precisions", "--steps", "2", "--only", "float16", "bfloat16")
    assert done.returncode == 0, done.stderr
    rows = [cells(line) for line in done.stdout.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["float16", "bfloat16"]
    assert all(float(row[1]) >= 0 for row in rows)


def test_precisions_on_a_gpu_are_those_of_the_schedule():
    rows = precisions(find_schedule("small-gpu"), gpus=1)
    assert [row.schedule.precision for row in rows.values()] == ["float32", "float16", "bfloat16"]
    assert len({row.program for row in rows.values()}) == 1


@pytest.mark.parametrize(("name", "bits"), [("tf32", 11), ("float16", 11), ("bfloat16", 8)])
def test_rounding_to_so_many_bits(name, bits):
    """To the nearest: the error is half of the last bit at most, and comes close to that."""
    to_precision = rounded.PRECISIONS[name].into[0]
    x = torch.linspace(0.01, 4, 100_001)
    errors = (to_precision(x) - x).abs() / torch.exp2(x.abs().log2().floor())
    assert 0.99 * 2.0**-bits < errors.max() <= 2.0**-bits
    assert torch.equal(to_precision(to_precision(x)), to_precision(x))


def test_layers_that_round(monkeypatch):
    """As if all layers computed in half precision, forwards and backwards, but only while they learn."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 4, 3, bias=False)
    model = SimpleNamespace(
        backbone=layer,
        neck=torch.nn.Identity(),
        bbox_head=SimpleNamespace(cls_convs=torch.nn.Identity(), reg_convs=torch.nn.Identity()),
    )
    x, weight = torch.rand(2, 4, 8, 8), layer.weight
    exact = layer(x)
    rounded.round_layers(model, rounded.PRECISIONS["float16"])
    half = torch.nn.functional.conv2d(x.half().float(), weight.half().float()).half().float()
    assert torch.equal(layer(x), half) and not torch.equal(half, exact)
    assert layer.weight is weight
    layer(x).sum().backward()
    assert torch.equal((1024 * weight.grad).half().float() / 1024, weight.grad)
    layer.eval()
    assert torch.equal(layer(x), exact)


def test_rows_of_the_recipe(tmp_path):
    done = benchmark(tmp_path, "learning.py", "nowhere", "--effects", "--only", "with Muon")
    assert done.returncode == 1
    rows = done.stderr.strip().partition("choose from: ")[2].split("; ")
    assert rows[:2] == ["recipe of small-cpu", "without Muon"]
    assert rows[-3:] == ["cross-entropy alone", "mosaic alone", "with random rotation"]
    assert len(rows) == 1 + 9 + 1 + 4 + 1


LEARNING = [
    "learning.py",
    "data",
    "--classes",
    "car",
    "ship",
    "--size",
    "64",
    "--patch",
    "96",
    "--overlap",
    "0",
]

#: In place of an interpreter: its arguments are a script, a model, the data file and the folder for results.
PERFECT_PEER = """
import json, sys
from pathlib import Path

import yaml

data, out = map(Path, sys.argv[3:5])
content = yaml.safe_load(data.read_text())
assert content["names"] == {0: "car", 1: "ship"}
found = []
for path in (Path(content["path"]) / content["val"]).with_name("labels").iterdir():
    for line in path.read_text().splitlines():
        number, *corners = line.split()
        poly = [float(share) * side for share, side in zip(corners, (96, 64) * 4)]
        image = int(path.stem) if path.stem.isnumeric() else path.stem
        found.append({"image_id": image, "category_id": int(number) + 1, "score": 0.9, "poly": poly})
(out / "val").mkdir()
(out / "val/predictions.json").write_text(json.dumps(found))
(out / "cpu.json").write_text("[[2.0, 7.0]]")
"""


@pytest.fixture
def data(tmp_path):
    """Four images of a ship, JPEG whatever their names say; the names are numbers."""
    corners = np.array([[20, 10], [60, 20], [57, 32], [17, 22]])
    image = np.full((64, 96, 3), 40, np.uint8)
    cv2.fillPoly(image, [corners], (200, 200, 200))
    for number in range(4):
        folder = tmp_path / "data" / ("train" if number < 2 else "val")
        for part in ("images", "labelTxt"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / f"images/00{number}.png").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
        (folder / f"labelTxt/00{number}.txt").write_text(f"{' '.join(map(str, corners.ravel()))} ship 0\n")


def benchmark(folder, program, *options):
    with suppress(FileExistsError):
        (folder / "configs").symlink_to(FOLDER.parent / "configs")
    command = ["python", FOLDER / program, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]
