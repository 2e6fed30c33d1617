"""Rotated IoU and NMS in PyTorch against mmcv's compiled operations on the CPU, on one thread.

``python benchmarks/rotated.py [--mmcv DIR]``: DIR is an unpacked source distribution of mmcv.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from measure import machine, table
from torch import Tensor

from tiltbox.geometry.rotated import pairwise_iou, rotated_nms

ASSIGNMENTS = ((20_000, 100), (20_000, 500))
PER_PATCH = 2_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mmcv", type=Path, help="unpacked source distribution of mmcv")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    ops = None
    if chosen.mmcv:
        from mmcv_ops import built

        ops = built(chosen.mmcv)
    print(machine("torch") + "\n")
    rows = [_iou(n, m, ops, chosen.rounds) for n, m in ASSIGNMENTS] + [_nms(PER_PATCH, ops, chosen.rounds)]
    print(table(["", "mmcv, CPU s", "tiltbox, CPU s", "faster", "largest difference"], rows))


def boxes(count: int, seed: int, side: float = 1024) -> Tensor:
    """Boxes of vehicles and ships on a patch."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=draw) * side
    sizes = torch.randn(count, 2, generator=draw).mul(0.4).exp() * torch.tensor([45.0, 18.0])
    return torch.cat([centres, sizes, (torch.rand(count, 1, generator=draw) - 0.5) * torch.pi], dim=1)


def _iou(n: int, m: int, ops: ModuleType | None, rounds: int) -> list[str]:
    """A matrix as the label assigner needs it: what each prior predicts with all objects."""
    predicted, truth = boxes(n, 0), boxes(m, 1)

    def theirs() -> Tensor:
        ious = predicted.new_zeros(n * m)
        ops.box_iou_rotated(predicted, truth, ious, 0, False)
        return ious.view(n, m)

    return _row(f"IoU, {n:,} × {m}", ops and theirs, lambda: pairwise_iou(predicted, truth), rounds)


def _nms(count: int, ops: ModuleType | None, rounds: int) -> list[str]:
    """Crowds of boxes around objects, as a detector gives them on a patch; of one class, as in mmcv."""
    objects = boxes(count // 8, 2)[torch.arange(count) % (count // 8)]
    draw = torch.Generator().manual_seed(3)
    found = objects + torch.randn(count, 5, generator=draw) * torch.tensor([3.0, 3.0, 3.0, 1.5, 0.05])
    scores, labels = torch.rand(count, generator=draw), torch.zeros(count, dtype=torch.long)

    def theirs() -> Tensor:
        order = scores.argsort(descending=True)
        return ops.nms_rotated(found, scores, order, found[order], labels, 0.1, 0)

    def kept(rows: Tensor) -> Tensor:
        return torch.zeros(count).index_fill(0, rows, 1)

    ours = lambda: rotated_nms(found, scores, labels, 0.1)  # noqa: E731
    return _row(f"NMS, {count:,} boxes", ops and theirs, ours, rounds, kept)


def _row(
    name: str,
    theirs: Callable[[], Tensor] | None,
    ours: Callable[[], Tensor],
    rounds: int,
    seen_as: Callable[[Tensor], Tensor] = lambda result: result,
) -> list[str]:
    seconds = [(_seconds(theirs), _seconds(ours)) for _ in range(rounds)]
    mine = statistics.median(own for _, own in seconds)
    if theirs is None:
        return [name, "–", f"{mine:.3f}", "", ""]
    other = statistics.median(one for one, _ in seconds)
    apart = (seen_as(theirs()) - seen_as(ours())).abs().max().item()
    return [name, f"{other:.3f}", f"{mine:.3f}", f"{other / mine:.1f}×", f"{apart:.1e}"]


def _seconds(job: Callable[[], Tensor] | None) -> float:
    """CPU seconds of the better of two calls in a row, the first of which warms up; 0 without a job."""
    best = float("inf") if job else 0.0
    for _ in range(2 if job else 0):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        clock = time.perf_counter()
        job()
        used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
        best = min(best, used or time.perf_counter() - clock)
    return best


if __name__ == "__main__":
    main()
