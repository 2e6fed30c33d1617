"""Counting multiply-adds against mmengine, which runs the detector: ``python benchmarks/complexity.py``."""

from __future__ import annotations

import argparse
import statistics
import time

from measure import machine, table

from tiltbox.model import build_detector
from tiltbox.model.complexity import count_complexity
from tiltbox.model.variants import load_variants


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variants", nargs="+", default=list(load_variants().variants))
    options.add_argument("--size", type=int, default=1024, help="side of the input")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(machine("torch", "onedl-mmengine") + "\n")
    _tiltbox(chosen.variants[0], chosen.size)  # the first time, PyTorch imports more of itself
    rows = [_row(name, chosen.size, chosen.rounds) for name in chosen.variants]
    print(table(["", "mmengine, CPU s", "tiltbox, CPU s", "faster", "mmengine, G", "tiltbox, G"], rows))


def _row(name: str, size: int, rounds: int) -> list[str]:
    """Medians over alternating runs."""
    costs = [(_mmengine(name, size), _tiltbox(name, size)) for _ in range(rounds)]
    theirs, ours = (statistics.median(seconds for seconds, _ in side) for side in zip(*costs, strict=True))
    counts = [f"{flops / 1e9:.3f}" for _, flops in costs[0]]
    return [name, f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.0f}×", *counts]


def _mmengine(name: str, size: int) -> tuple[float, float]:
    """Seconds and the count; the time to build the detector is not included."""
    from mmengine.analysis import get_model_complexity_info

    model = build_detector(name).eval()
    before = time.process_time()
    found = get_model_complexity_info(model, (3, size, size), show_table=False, show_arch=False)
    return time.process_time() - before, found["flops"]


def _tiltbox(name: str, size: int) -> tuple[float, float]:
    """Everything that ``tiltbox complexity`` does after its imports, including building the detector."""
    before = time.process_time()
    found = count_complexity(build_detector(name), size, size)
    return time.process_time() - before, found.flops


if __name__ == "__main__":
    main()
