"""The whole DAG on real DOTA images, with a schedule of two steps; its stages start at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

SAMPLE = Path(__file__).resolve().parents[3] / "shared/dota-sample"
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason="needs the six DOTA images of ../shared/dota-sample"
)

DATASET = {
    "name": "dota-sample",
    "source": {"folder": str(SAMPLE)},
    "train_splits": ["train"],
    "test_split": "val",
    "schedule": "smoke",
    "patch": {"size": 1024, "overlap": 200},
}


def test_train_is_learned_and_val_is_scored(copy_project, tmp_path, preload):
    folder = copy_project(tmp_path)
    (folder / "sample.yaml").write_text(yaml.safe_dump(DATASET))
    command = [BIN / "snakemake", "--cores", "2", "all_variants", "--config"]
    settings = ["dataset=sample.yaml", "variants=[yoloms-xs-current]", "gpus=0"]
    programs = [str(preload("python")), str(BIN), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(programs)}
    done = subprocess.run([*command, *settings], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    manifest = json.loads((folder / "data/dota-sample/patches/train/manifest.json").read_text())
    assert (manifest["images"], manifest["patches"], manifest["objects"]) == (4, 20, 628)
    results = folder / "results/dota-sample/yoloms-xs-current"
    metrics = json.loads((results / "evaluate/metrics.json").read_text())
    assert (metrics["dataset"], metrics["split"], metrics["images"]) == ("dota-sample", "val", 2)
    counts = {name: row["objects"] for name, row in metrics["classes"].items() if row["objects"]}
    assert counts == {"large-vehicle": 50, "small-vehicle": 14, "swimming-pool": 1, "roundabout": 1}
    assert metrics["classes"]["plane"]["AP50"] is None
    assert len(zipfile.ZipFile(results / "merge/Task1.zip").namelist()) == 15
    assert "yoloms-xs-current" in (folder / "results/dota-sample/leaderboard.md").read_text()
    assert {path.name for path in (results / "evaluate/pictures").iterdir()} == {"P0075.png", "P1888.png"}
