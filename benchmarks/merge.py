"""Merging against the DOTA devkit: ``python benchmarks/merge.py [--devkit DIR]``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from measure import Contender, compared, comparison, machine, say_cost_of
from scenes import Scene

HERE = Path(__file__).parent
SIZES = (40_000, 242_000, 2_300_000)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--devkit", type=Path, help="folder of the DOTA devkit, with polyiou built")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of detections")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(machine("numba", "pyarrow"))
    for size in chosen.sizes:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), size)
            costs = compared(contenders(Path(folder), chosen.devkit), chosen.rounds)
            print(f"\n{size:,} detections\n\n{comparison(costs, next(iter(costs)))}")
            if chosen.devkit:
                print(f"\n{same_boxes(Path(folder))}")


def prepare(folder: Path, size: int) -> None:
    scene = Scene(size)
    scene.write_task1(folder / "patches", patches=True)
    scene.write_parquet(folder / "detections.parquet")


def contenders(folder: Path, devkit: Path | None) -> dict[str, Contender]:
    python, tiltbox = sys.executable, Path(sys.executable).with_name("tiltbox")
    found = {}
    if devkit:
        command = [python, HERE / "devkit.py", "merge", devkit, folder]
        found["devkit, text in, start-up apart"] = Contender(command, inside=True)
    found["tiltbox, text in, warm"] = Contender([python, __file__, "--warm", folder], inside=True)
    for name, source in (("text", "patches"), ("parquet", "detections.parquet")):
        command = [tiltbox, "merge", folder / source, "--out", folder / f"from-{name}"]
        found[f"tiltbox, {name} in, the whole command"] = Contender(command)
    return found


def same_boxes(folder: Path) -> str:
    """How many kept boxes are the same as the devkit's, by image and score."""
    kept = [
        {
            (path.name, line.split()[0], f"{float(line.split()[1]):.9f}")
            for path in (folder / out).glob("Task1_*.txt")
            for line in path.read_text().splitlines()
        }
        for out in ("devkit", "from-text")
    ]
    devkit, ours, both = map(len, (*kept, kept[0] & kept[1]))
    return f"{devkit:,} boxes kept by the devkit, {ours:,} by tiltbox, {both:,} by both"


def warm(folder: Path) -> None:
    from tiltbox.stages.merge import merge

    def job() -> None:
        shutil.rmtree(folder / "warm", ignore_errors=True)
        merge(folder / "patches", folder / "warm")

    say_cost_of(job, warm=True)


if __name__ == "__main__":
    warm(Path(sys.argv[2])) if sys.argv[1:2] == ["--warm"] else main()
