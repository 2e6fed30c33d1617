"""Runs the DOTA devkit: ``python devkit.py merge|evaluate DEVKIT FOLDER`` in a separate process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from measure import say_cost_of


def merge(folder: Path) -> None:
    import ResultMerge

    ResultMerge.nms_thresh = 0.1
    out = folder / "devkit"
    out.mkdir(exist_ok=True)
    ResultMerge.mergebypoly(str(folder / "patches"), str(out))


def evaluate(folder: Path) -> None:
    """At one threshold."""
    from dota_evaluation_task1 import voc_eval

    from tiltbox.dota.classes import DOTA_V1_CLASSES

    places = (
        str(folder / "task1/Task1_{:s}.txt"),
        str(folder / "labelTxt/{:s}.txt"),
        str(folder / "images.txt"),
    )
    aps = [voc_eval(*places, name, ovthresh=0.5, use_07_metric=True)[2] for name in DOTA_V1_CLASSES]
    (folder / "devkit.txt").write_text(" ".join(map(repr, map(float, aps))))


if __name__ == "__main__":
    job, devkit, folder = sys.argv[1:]
    sys.path.insert(0, devkit)
    np.seterr(all="ignore")
    say_cost_of(lambda: {"merge": merge, "evaluate": evaluate}[job](Path(folder)))
