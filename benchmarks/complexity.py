"""Counting multiply-adds against mmengine, which runs the detector: ``python benchmarks/complexity.py``."""

from __future__ import annotations

import argparse
import statistics
import time

from measure import machine, table

from tiltbox.model import build_detector
from tiltbox.model.complexity import count_complexity
from tiltbox.settings.variants import load_variants


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variants", nargs="+", default=list(load_variants().variants))
    options.add_argument("--size", type=int, default=1024, help="side of the input")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(machine("torch", "onedl-mmengine") + "\n")
    rows = [_row(name, chosen.size, chosen.rounds) for name in chosen.variants]
    print(table(["", "mmengine, CPU s", "tiltbox, CPU s", "faster", "mmengine, G", "tiltbox, G"], rows))


def _row(name: str, size: int, rounds: int) -> list[str]:
    """Medians of runs in turns; the detector is built anew for each, which is not counted."""
    costs = [(_timed(_mmengine, name, size), _timed(_tiltbox, name, size)) for _ in range(rounds)]
    theirs, ours = (statistics.median(seconds for seconds, _ in side) for side in zip(*costs, strict=True))
    counts = [flops for _, flops in costs[0]]
    return [
        name,
        f"{theirs:.2f}",
        f"{ours:.2f}",
        f"{theirs / ours:.0f}×",
        *(f"{c / 1e9:.3f}" for c in counts),
    ]


def _timed(count, name: str, size: int) -> tuple[float, float]:
    model = build_detector(name).eval()
    before = time.process_time()
    flops = count(model, size)
    return time.process_time() - before, flops


def _mmengine(model, size: int) -> float:
    from mmengine.analysis import get_model_complexity_info

    return get_model_complexity_info(model, (3, size, size), show_table=False, show_arch=False)["flops"]


def _tiltbox(model, size: int) -> float:
    return count_complexity(model, size, size).flops


if __name__ == "__main__":
    main()
