"""Paired bootstrap against plain evaluations: ``python benchmarks/compare.py``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import Contender, compared, machine, say_cost_of, table
from scenes import Scene

DETECTIONS, RESAMPLES = 250_000, 1000
PLAIN, ALONE, WHOLE = "one evaluation of both", "all resamples of both", "the whole command"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--detections", type=int, default=DETECTIONS, help="of each detector")
    options.add_argument("--resamples", type=int, default=RESAMPLES)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = Scene(chosen.detections)
        scene.write_labels(folder / "labelTxt")
        scene.write_task1(folder / "first", patches=False)
        scene.detect_again(chosen.detections, seed=1)
        scene.write_task1(folder / "second", patches=False)
        costs = compared(contenders(folder, chosen.resamples), chosen.rounds)
    print(machine("numba"))
    print(f"\n{chosen.detections:,} detections of each detector, {len(scene.image):,} objects\n")
    plain = costs[PLAIN]
    rows = [[name, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{cost.peak:.0f}"] for name, cost in costs.items()]
    rows.append([f"{chosen.resamples:,} such evaluations", f"{plain.cpu * chosen.resamples:.0f}", "", ""])
    print(table(["", "CPU s", "clock s", "peak MiB"], rows))


def contenders(folder: Path, resamples: int) -> dict[str, Contender]:
    python, tiltbox = sys.executable, Path(sys.executable).with_name("tiltbox")
    inside = [python, __file__, "--inside", folder, resamples]
    places = [folder / "first", folder / "second", "--labels", folder / "labelTxt"]
    command = [tiltbox, "compare", *places, "--resamples", resamples, "--out", folder / "compare.json"]
    return {
        PLAIN: Contender([*inside, "plain"], inside=True),
        ALONE: Contender([*inside, "resampled"], inside=True),
        WHOLE: Contender(command),
    }


def inside(folder: Path, resamples: int, job: str) -> None:
    """Without reading files, and compiled."""
    from tiltbox.dota.classes import DOTA_V1_CLASSES
    from tiltbox.dota.labels import read_labels
    from tiltbox.dota.task1 import read_task1
    from tiltbox.metrics.bootstrap import compare_runs
    from tiltbox.metrics.score import evaluate_task1

    labels = {path.stem: read_labels(path) for path in sorted((folder / "labelTxt").iterdir())}
    first, second = (read_task1(folder / name, DOTA_V1_CLASSES) for name in ("first", "second"))
    jobs = {
        "plain": lambda: [evaluate_task1(found, labels, DOTA_V1_CLASSES) for found in (first, second)],
        "resampled": lambda: compare_runs([first], [second], labels, DOTA_V1_CLASSES, resamples=resamples),
    }
    say_cost_of(jobs[job], warm=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main()
