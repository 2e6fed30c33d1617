"""Global-query attention, which the current generation of YOLO-MS adds to its MS-Blocks."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

QUERIES = 3  # one per branch of the MS-Block


class GlobalQueryAttention(nn.Module):
    """Weights channels by how well a pooled one-channel view of the map answers shared queries.

    Args:
        channels: Channels of the map, a multiple of three.
        size: Side of the pooled view.

    Shape: map (b, channels, h, w) and queries (3, size**2) to (b, channels, h, w). Channel c is
    scaled by the answer to query c mod 3, as the published weights were trained.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.down_conv = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        view = self.down_conv(_pooled(x, self.size)).flatten(1)
        answers = (view @ query.T).sigmoid()
        return x * answers.repeat(1, x.shape[1] // QUERIES)[:, :, None, None]


def _pooled(x: Tensor, size: int) -> Tensor:
    """(b, c, h, w) to (b, c, size, size): means of equal parts, which may overlap."""
    if not (x.is_cuda or torch.are_deterministic_algorithms_enabled()):
        return nn.functional.adaptive_avg_pool2d(x, size)
    # On GPUs its gradient is slow and not deterministic; matrix products are quick and are.
    rows, columns = (_means(length, size, x.device, x.dtype) for length in x.shape[2:])
    return rows @ x @ columns.T


@cache
@torch.inference_mode(False)  # so that training can use what was made for a validation
def _means(length: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, length): row i averages from floor(i * length / size) to ceil((i + 1) * length / size)."""
    cells, ends = torch.arange(length), torch.arange(size + 1) * length
    first, past = ends[:-1] // size, -(-ends[1:] // size)
    inside = (cells >= first[:, None]) & (cells < past[:, None])
    return (inside.double() / inside.sum(dim=1, keepdim=True)).to(device, dtype)
