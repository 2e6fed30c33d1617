"""How time and memory grow with the input: ``python benchmarks/scaling.py``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import Contender, compared, machine, table
from scenes import Scene
from split import add_image

DETECTIONS = (10_000, 100_000, 1_000_000, 10_000_000)
IMAGES = (10, 100, 1_000)
SIDE = 2000
TILTBOX = Path(sys.executable).with_name("tiltbox")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--detections", type=int, nargs="+", default=DETECTIONS)
    options.add_argument(
        "--images", type=int, nargs="+", default=IMAGES, help="of 2000 x 2000 pixels, to split"
    )
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    print(machine("numba", "pyarrow") + "\n")
    rows = [row for size in chosen.detections for row in _detections(size, chosen.rounds)]
    print(table(["whole command", "CPU s", "clock s", "peak MiB", "CPU µs each"], rows) + "\n")
    rows = [_images(count, chosen.rounds) for count in chosen.images]
    print(table(["whole command", "CPU s", "clock s", "peak MiB", "CPU s each"], rows))


def _detections(size: int, rounds: int) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = Scene(size)
        scene.write_parquet(folder / "detections.parquet")
        scene.write_task1(folder / "task1", patches=False)
        scene.write_labels(folder / "labelTxt")
        places = ["--labels", folder / "labelTxt", "--out", folder / "metrics.json"]
        jobs = {
            "merge": [TILTBOX, "merge", folder / "detections.parquet", "--out", folder / "merge"],
            "evaluate": [TILTBOX, "evaluate", folder / "task1", *places],
        }
        costs = compared({name: Contender(command) for name, command in jobs.items()}, rounds)
    return [
        [f"{name}, {size:,} detections", *_figures(cost), f"{cost.cpu / size * 1e6:.1f}"]
        for name, cost in costs.items()
    ]


def _images(count: int, rounds: int) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        add_image(folder / "train", 0, side=SIDE)
        for number in range(1, count):  # the same image under other names: links, to save space
            for part, suffix in (("images", "png"), ("labelTxt", "txt")):
                (folder / f"train/{part}/P{number:04d}.{suffix}").hardlink_to(
                    folder / f"train/{part}/P0000.{suffix}"
                )
        command = [TILTBOX, "split", folder / "train", "--out", folder / "patches"]
        cost = compared({"split": Contender(command)}, rounds)["split"]
    return [f"split, {count:,} images", *_figures(cost), f"{cost.cpu / count:.2f}"]


def _figures(cost) -> list[str]:
    return [f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{cost.peak:.0f}"]


if __name__ == "__main__":
    main()
