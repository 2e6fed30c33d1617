"""A ``tiltbox`` that does no work: it writes one-line outputs, and the records that the real stages leave.

It notes every call in the file ``calls``, and in ``trainings`` when one begins and ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.provenance import SUFFIX, TASK1_FILES, Begun, beside

TRAINED = ("checkpoint.pth", "config.py", "history.csv", "train.json")
SCORED = ("metrics.json", "dota.txt", "pr_curves.csv", "confusion.csv", "outcomes.parquet", "gallery.json")


def main() -> None:
    work(*sys.argv[1:])


def work(verb: str, *arguments: str) -> None:
    options = dict(pairwise(arguments))
    note("calls", " ".join((verb, *arguments)))
    if verb in ("tracking", "weights"):
        return
    out, begun = Path(options["--out"]), Begun(verb)
    match verb:
        case "download" | "split":
            outputs, record = [out / "manifest.json"], beside(out)
        case "train":
            note("trainings", "begin")
            time.sleep(float(os.environ.get("TRAINING_SECONDS", "0")))
            while Path("hold").exists():
                time.sleep(0.02)
            note("trainings", "end")
            begun.reads(Path(options["--patches"]) / "manifest.json")
            outputs, record = [out / name for name in TRAINED], out / SUFFIX
        case "predict":
            begun.reads(Path(options["--checkpoint"]), Path(options["--patches"]) / "manifest.json")
            outputs, record = [out], beside(out)
        case "merge":
            begun.reads(Path(arguments[0]))
            outputs = [out / f"Task1_{name}.txt" for name in DOTA_V1_CLASSES] + [out / "Task1.zip"]
            record = beside(out)
        case "evaluate":
            begun.reads(Path(arguments[0]), pattern=TASK1_FILES)
            outputs, record = [out.with_name(name) for name in SCORED], beside(out)
        case "complexity":
            outputs, record = [out], beside(out)
        case "report":
            begun.reads(*sorted(Path(arguments[0]).glob("**/metrics.json")))
            names = {path.parent.parent.name for path in Path(arguments[0]).glob("*/complexity/*.json")}
            outputs = [out / f"leaderboard.{suffix}" for suffix in ("md", "csv", "html")]
            outputs += [out / "metrics/all.json", out / "plots/training.csv"]
            outputs += [out / f"detectors/{name}.html" for name in sorted(names)]
            record = out / f"leaderboard.{SUFFIX}"
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(json.dumps({"job": os.environ.get("TILTBOX_JOB")}) + "\n")
    begun.record(record, outputs)


def note(file: str, line: str) -> None:
    with Path(file).open("a") as notes:
        notes.write(line + "\n")


if __name__ == "__main__":
    main()
