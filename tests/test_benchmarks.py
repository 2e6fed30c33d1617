"""Each benchmark runs, on next to nothing; what it measures is for people to read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("merge.py --sizes 3000 --rounds 1", "tiltbox, parquet in, the whole command"),
        ("evaluate.py --sizes 3000 --rounds 1", "tiltbox, ten thresholds, the whole command"),
        ("split.py --images 1 --rounds 1", "Names and pixels are the same."),
        ("complexity.py --variants yoloms-xs-previous --size 256 --rounds 1", "1.390"),
        ("rotated.py --rounds 1", "NMS, 2,000 boxes"),
        ("scaling.py --detections 3000 --images 1 --rounds 1", "split, 1 images"),
    ],
)
def test_it_runs(tmp_path, words, said):
    program, *options = words.split()
    done = subprocess.run(
        [sys.executable, FOLDER / program, *options],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
