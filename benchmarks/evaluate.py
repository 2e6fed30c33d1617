"""Scoring against the DOTA devkit: ``python benchmarks/evaluate.py [--devkit DIR]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measure import Contender, compared, comparison, machine, say_cost_of
from scenes import Scene

HERE = Path(__file__).parent
SIZES = (40_000, 242_000, 2_000_000)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--devkit", type=Path, help="folder of the DOTA devkit, with polyiou built")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of detections")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(machine("numba", "pyarrow"))
    for size in chosen.sizes:
        with tempfile.TemporaryDirectory() as folder:
            scene = Scene(size)
            scene.write_task1(Path(folder) / "task1", patches=False)
            scene.write_labels(Path(folder) / "labelTxt")
            costs = compared(contenders(Path(folder), chosen.devkit), chosen.rounds)
            print(f"\n{size:,} detections\n\n{comparison(costs, next(iter(costs)))}")
            if chosen.devkit:
                print(f"\n{same_scores(Path(folder))}")


def contenders(folder: Path, devkit: Path | None) -> dict[str, Contender]:
    python, tiltbox = sys.executable, Path(sys.executable).with_name("tiltbox")
    found = {}
    if devkit:
        command = [python, HERE / "devkit.py", "evaluate", devkit, folder]
        found["devkit, one threshold"] = Contender(command, inside=True)
    found["tiltbox, ten thresholds, warm"] = Contender([python, __file__, "--warm", folder], inside=True)
    places = ["--labels", folder / "labelTxt", "--out", folder / "metrics.json"]
    command = [tiltbox, "evaluate", folder / "task1", *places, "--absent-classes", "zero"]
    found["tiltbox, ten thresholds, the whole command"] = Contender(command)
    return found


def same_scores(folder: Path) -> str:
    """The number of classes in which AP50 has the same bits."""
    devkit = list(map(float, (folder / "devkit.txt").read_text().split()))
    ours = [row["AP50"] for row in json.loads((folder / "metrics.json").read_text())["classes"].values()]
    return (
        f"AP50 is bit-equal to the devkit's in {sum(map(float.__eq__, devkit, ours))} of {len(ours)} classes"
    )


def warm(folder: Path) -> None:
    from tiltbox.stages.evaluate import evaluate

    say_cost_of(lambda: evaluate(folder / "task1", folder / "labelTxt", folder / "warm.json"), warm=True)


if __name__ == "__main__":
    warm(Path(sys.argv[2])) if sys.argv[1:2] == ["--warm"] else main()
