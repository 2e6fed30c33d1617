"""Rotated IoU and NMS in PyTorch: differentiable, on CPU and GPU alike, without compiled ops.

Boxes are ``rbox`` rows (cx, cy, w, h, theta): pixels and radians, theta turning the w-axis from +x
towards +y. All boxes of a call share one frame.

The intersection needs neither vertex sorting nor case distinctions. Seen from the second box, the
first is a convex polygon over the rectangle |x| <= hw, |y| <= hh. At each x the polygon spans the
interval from ``bottom(x)`` to ``top(x)``, and because clamping is monotone, the part of it inside the
rectangle is ``clamp(top) - clamp(bottom)``. So the area is the integral of the clamped boundary over
[-hw, hw], a sum over the four directed edges of integrals of clamped straight lines. Every term is
continuous in all coordinates, so shared edges, touching corners and equal boxes are not special cases.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_CORNER_SIGNS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))  # once around, mathematically positive


def aligned_intersection(first: Tensor, second: Tensor) -> Tensor:
    """Intersection areas of row i of ``first`` with row i of ``second``.

    Args:
        first, second: rboxes, shape (n, 5), one floating dtype.

    Returns:
        Areas in square pixels, shape (n,), differentiable with respect to both.
    """
    x, y = _corners_seen_from(first, second)
    half_w, half_h = second[:, 2:3].abs() / 2, second[:, 3:4].abs() / 2
    next_x, next_y = x.roll(-1, dims=1), y.roll(-1, dims=1)
    dx, dy = next_x - x, next_y - y
    start_x = torch.minimum(torch.maximum(x, -half_w), half_w)
    end_x = torch.minimum(torch.maximum(next_x, -half_w), half_w)
    safe_dx = torch.where(dx == 0, torch.ones_like(dx), dx)
    start_y = y + ((start_x - x) / safe_dx).clamp(0, 1) * dy
    end_y = y + ((end_x - x) / safe_dx).clamp(0, 1) * dy
    # A positively directed boundary runs along its top in the direction of falling x.
    area = ((start_x - end_x) * _mean_of_clamped_line(start_y, end_y, half_h)).sum(dim=1)
    return area.clamp(min=0)


def aligned_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of row i of ``first`` with row i of ``second``: (n, 5) and (n, 5) to (n,).

    Boxes without area have IoU 0 with everything, including themselves.

    >>> box = torch.tensor([[5.0, 5.0, 4.0, 2.0, 0.3]])
    >>> aligned_iou(box, box + torch.tensor([0.0, 0.0, 4.0, 0.0, 0.0])).item()
    0.5
    """
    overlap = aligned_intersection(first, second)
    union = _areas(first) + _areas(second) - overlap
    tiny = torch.finfo(union.dtype).tiny
    return (overlap / union.clamp(min=tiny)).clamp(max=1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every row of ``first`` with every row of ``second``: (..., n, 5) and (..., m, 5) to (..., n, m).

    Only pairs whose circumscribed circles meet are computed; the others, and pairs with a NaN, are 0.
    Infinite numbers give NaN.
    """
    rows, columns = first.shape[-2], max(second.shape[-2], 1)
    with torch.no_grad():
        meets = _meets(first, second)
        pairs = meets.flatten().nonzero()[:, 0]
        row = pairs // columns  # counted through all matrices, as are columns
        column = pairs % columns + (row // rows * columns if first.dim() > 2 else 0)
    ious = aligned_iou(first.flatten(0, -2)[row], second.flatten(0, -2)[column])
    return first.new_zeros(meets.numel()).index_put((pairs,), ious).view(meets.shape)


def rotated_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression within each label.

    A box is removed if its IoU with a better box that stays is greater than ``threshold``. Better means a
    higher score and, among equal scores, an earlier row, so the result does not depend on the device.

    Args:
        boxes: rboxes, shape (n, 5).
        scores: shape (n,).
        labels: integers, shape (n,).

    Returns:
        Indices of the boxes that stay, best first, shape (k,).
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, labels = boxes[order].detach(), labels[order]
    rows, columns = _meeting_pairs(boxes, boxes)
    apart = (rows < columns) & (labels[rows] == labels[columns])
    rows, columns = rows[apart], columns[apart]
    over = aligned_iou(boxes[rows], boxes[columns]) > threshold
    return order[_survivors(rows[over], columns[over], len(boxes))]


def _survivors(better: Tensor, worse: Tensor, count: int) -> Tensor:
    """Greedy outcome of "``better[i]`` suppresses ``worse[i]`` if it stays", as a mask of ``count`` boxes.

    Repeats the rule for all boxes at once until nothing changes. After k rounds every box whose chain of
    better boxes has at most k entries is settled, so the loop ends with the sequential result.
    """
    stays = torch.ones(count, dtype=torch.bool, device=better.device)
    while True:
        suppressed = torch.zeros_like(stays).index_fill_(0, worse[stays[better]], True)
        if torch.equal(stays, ~suppressed):
            return stays
        stays = ~suppressed


def _corners_seen_from(boxes: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Corner coordinates (n, 4) of ``boxes`` with the centres and axes of ``frame`` as origin and axes."""
    offset = boxes[:, :2] - frame[:, :2]
    cos, sin = frame[:, 4].cos(), frame[:, 4].sin()
    centre_x = offset[:, 0] * cos + offset[:, 1] * sin
    centre_y = offset[:, 1] * cos - offset[:, 0] * sin
    turn = boxes[:, 4] - frame[:, 4]
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    signs = _half_signs(boxes.dtype, boxes.device)
    along, across = boxes[:, 2:3].abs() * signs[:, 0], boxes[:, 3:4].abs() * signs[:, 1]
    return centre_x[:, None] + along * cos - across * sin, centre_y[:, None] + along * sin + across * cos


@cache
@torch.inference_mode(False)  # so that training can use what was made for a validation
def _half_signs(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(_CORNER_SIGNS, dtype=dtype, device=device) / 2


def _mean_of_clamped_line(start: Tensor, end: Tensor, limit: Tensor) -> Tensor:
    """Mean of clamp(y, -limit, limit) while y runs evenly from ``start`` to ``end``."""
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    low_in = torch.minimum(torch.maximum(low, -limit), limit)
    high_in = torch.minimum(torch.maximum(high, -limit), limit)
    rise = high - low
    flat = rise <= torch.finfo(rise.dtype).eps * limit
    safe_rise = torch.where(flat, torch.ones_like(rise), rise)
    middle = (low_in + high_in) / 2
    # The shares of the way below -limit and above limit pull the mean towards those ends.
    below = (torch.minimum(high, -limit) - low).clamp(min=0) / safe_rise
    above = (high - torch.maximum(low, limit)).clamp(min=0) / safe_rise
    mean = middle * (high_in - low_in) / safe_rise + limit * (above - below)
    return torch.where(flat, middle, mean)


def _meeting_pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column indices of the pairs whose circumscribed circles meet."""
    with torch.no_grad():
        rows, columns = _meets(first, second).nonzero(as_tuple=True)
    return rows, columns


def _meets(first: Tensor, second: Tensor) -> Tensor:
    """Whether circumscribed circles meet: (..., n, 5) and (..., m, 5) to (..., n, m)."""
    first, second = first[..., :, None, :], second[..., None, :, :]
    reach = first[..., 2:4].norm(dim=-1) / 2 + second[..., 2:4].norm(dim=-1) / 2
    dx, dy = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    return dx * dx + dy * dy < reach * reach


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] * boxes[:, 3]).abs()
